"""What tests share: stores and recipes, the command, oracles, and whatever fails on purpose."""

from pathlib import Path

TESTS = Path(__file__).parents[1]  # on PYTHONPATH, recipes of `support` have import paths
ROOT = TESTS.parent
DATA = TESTS / "data"
