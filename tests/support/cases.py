"""How many cases a test runs by default, and with --all."""

from __future__ import annotations

import pytest
from hypothesis import settings


def examples_of(n):
    """Scale a slow test's n Hypothesis examples to this profile; with --all, others run 100."""
    return -(-n * settings().max_examples // 100)


def every(n, cases):
    """Each n-th of these cases in the default run, all of them with --all."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.slow] * (number % n > 0)
        )
        for number, case in enumerate(cases)
    ]
