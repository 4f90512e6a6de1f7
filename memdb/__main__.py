"""``python -m memdb`` is the command."""

from memdb.cli import program

program()
