"""Words that depend on numbers, and which text is one."""

from __future__ import annotations


def count(n: int, noun: str) -> str:
    """Return a number of things, in the singular where there is one."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def verb(n: int, one: str = "is", more: str = "are") -> str:
    """Return the form of a verb that goes with a number of things."""
    return one if n == 1 else more


def is_number(text: str) -> bool:
    """Tell whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
