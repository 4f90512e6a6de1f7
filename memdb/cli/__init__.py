"""The ``memdb`` command: each command is parse, one call, render."""

from memdb.cli import asking, keeping, making, pairs
from memdb.cli.app import app
from memdb.cli.app import run as main

__all__ = ["app", "asking", "keeping", "main", "making", "pairs"]
