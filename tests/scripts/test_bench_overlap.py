"""The benchmark of what overlaps a training trains, at a tiny size, with the networks as they are."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import ROOT


@pytest.mark.slow
def test_the_benchmark_of_the_hosts_share_trains_in_both_ways():
    sizes = ["--models", "2", "--batch-models", "1", "--epochs", "1", "--milliseconds", "0.1"]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench_overlap.py", *sizes],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    ways = [line.split(":")[0].strip() for line in done.stdout.splitlines()[1:3]]
    assert ways == ["overlapped", "one by one"], done.stderr
