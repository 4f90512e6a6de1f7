"""``python -m memdb`` is the command."""

from memdb.cli import program

if __name__ == "__main__":  # workers import this module under another name
    program()
