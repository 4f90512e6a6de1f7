"""The ``memdb`` command: each command is parse, one call, render."""

from memdb.cli import asking, assessing, interop, keeping, making, pairs
from memdb.cli.app import app
from memdb.cli.app import run as main

__all__ = ["app", "asking", "assessing", "interop", "keeping", "main", "making", "pairs"]
