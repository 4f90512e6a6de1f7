"""The ``memdb`` command: each command is parse, one call, render."""

from memdb.cli import asking, assessing, keeping, making, pairs, sharing
from memdb.cli.app import app
from memdb.cli.app import run as main

__all__ = ["app", "asking", "assessing", "keeping", "main", "making", "pairs", "sharing"]
