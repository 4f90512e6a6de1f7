"""All pairs: how fast they are counted and the strongest kept, against what else one could do.

counts   One tile of counts by each candidate, all of them exact, in billions of multiply-adds a second (one for
         each pair and model): numkong on packed bits, float32 BLAS on unpacked ones, NumPy's bitwise_count. And
         the share of the machine's limit: AND and popcount in C over a row that stays in the cache, four at a time,
         where there is a compiler, else numkong over such rows.
top      The strongest pairs of a slice of the test examples: memdb in whole (products, scores, ranking), and
         the obvious float32 NumPy product of the same counts alone, in turns, as many threads each. Requirement:
         at least 2.5 times as fast, and every count equal.
whole    All test examples, in a process of its own: seconds, the share of the machine's limit that the whole
         search reaches, and peak memory. Requirement: under 2 GB. Once more with z statistics tallied, same
         same class only, and with both bounds of Feldman and Zhang.
command  CPU seconds of whole ``memdb pairs`` processes, imports and scores of what was found included, and the
         share of the machine's limit that they reach: what counting alone would take there. With --store only.

    python scripts/bench_pairs.py
    python scripts/bench_pairs.py --store STORE --only whole

Without a store bits are random, with scores spread as wide as those of pairs without influence.
Expect about two minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from bench_startup import ROOT, cpu_seconds, of
from figures_store import peak_bytes
from numpy.typing import NDArray

from memdb.format import bits
from memdb.query.pairs.popcount import Products, Words, packed
from memdb.query.pairs.search import PairSearch
from memdb.query.pairs.types import PairBits, PairChoice

RUNS = 5
TARGET_RATIO, TARGET_BYTES = 2.5, 2 << 30
TILE = (64, 2048)
WHOLE = "whole"
CHOICES = {
    "top": PairChoice(top=256),
    "top and z statistics": PairChoice(top=256),
    "top of the same class": PairChoice(top=256, same_class=True),
    "influence .15, memorization .25": PairChoice(min_influence=0.15, min_memorization=0.25),
}
COMMANDS = (
    ["--min-influence", "0.15"],
    ["--min-influence", "0.15", "--min-memorization", "0.25"],
    ["--top", "256"],
)
LOOP = """
#include <stdint.h>
#include <stddef.h>
uint64_t popcounts(const uint64_t *a, const uint64_t *b, size_t n, size_t rounds) {
    uint64_t total = 0, b0 = b[0], b1 = b[1], b2 = b[2], b3 = b[3];
    for (size_t round = 0; round < rounds; round++) {
        uint64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (size_t i = 0; i < n; i++) {
            s0 += (uint64_t)__builtin_popcountll(a[i] & b0);
            s1 += (uint64_t)__builtin_popcountll(a[i] & b1);
            s2 += (uint64_t)__builtin_popcountll(a[i] & b2);
            s3 += (uint64_t)__builtin_popcountll(a[i] & b3);
        }
        total += s0 ^ s1 ^ s2 ^ s3 ^ round;
        __asm__ volatile("" ::: "memory");
    }
    return total;
}
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", help="count its bits instead of random ones")
    parser.add_argument("--models", type=int, default=4000)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--slice", type=int, default=1024, help="test examples that are timed in turns")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", choices=["counts", "top", "whole", "command"])
    parser.add_argument(WHOLE, nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.whole:
        print(json.dumps(whole(options)))
        return 0
    parts = [options.only] if options.only else ["counts", "top", "whole", "command"]
    print(f"{options.threads} threads, load {os.getloadavg()[0]:.1f} before, numpy {np.__version__}")
    met = True
    if "counts" in parts:
        count_figures(options)
    if "top" in parts:
        met &= top_figures(options)
    if "whole" in parts:
        met &= whole_figures(options)
    if "command" in parts and options.store:
        command_figures(options.store)
    return 0 if met else 1


def made(options: argparse.Namespace) -> PairBits:
    """Return a store's bits, or random ones: masks of .7, accuracies as wide as on real test examples."""
    if options.store:
        import memdb
        from memdb.query.pairs.scores import pair_bits

        with memdb.open(options.store) as db:
            return pair_bits(db.relations())
    random = np.random.default_rng(0)
    masks = random_words(random, np.full(options.train, 0.7), options.models)
    correct = random_words(random, random.beta(1.2, 0.35, options.test), options.models)
    labels = (random.integers(0, 100, n).astype(np.int32) for n in (options.train, options.test))
    train_labels, test_labels = labels
    memorization = random.random(options.train) ** 3
    return PairBits(
        options.models,
        masks,
        train_labels,
        memorization,
        correct,
        test_labels,
        bits.count(masks),
        bits.count(correct),
    )


def random_words(random: np.random.Generator, chances: NDArray[np.float64], n_models: int) -> Words:
    """Return bits with a chance of their own for each example."""
    rows = [
        np.packbits(random.random((len(part), n_models), dtype=np.float32) < part[:, None], 1, "little")
        for part in np.array_split(chances, -(-len(chances) // 1000))
    ]
    return bits.words(np.concatenate(rows))


def count_figures(options: argparse.Namespace) -> None:
    """Print how fast each candidate counts, and how near the machine's limit."""
    random = np.random.default_rng(1)
    left, right = (random_words(random, np.full(n, 0.7), options.models) for n in TILE)
    pairs = TILE[0] * TILE[1] * options.models
    unpacked = [bits.unpack(w.view(np.uint8), options.models).T.astype(np.float32) for w in (left, right)]
    expected = np.rint(unpacked[0] @ unpacked[1].T).astype(np.int32)
    product, laid = Products(), packed(right)
    candidates: dict[str, Callable[[], NDArray[Any]]] = {
        "numkong, packed bits": lambda: product.counts(left, laid),
        "float32 BLAS, its own threads": lambda: unpacked[0] @ unpacked[1].T,
        "NumPy bitwise_count": lambda: np.stack([bits.count_and(right, row) for row in left]),
    }
    print(f"\ncounts of {TILE[0]} x {TILE[1]} pairs of {options.models} models, one thread unless said")
    rates = {}
    for name, candidate in candidates.items():
        assert (candidate() == expected).all(), f"{name} counts wrong"
        rates[name] = pairs / fastest(candidate) / 1e9
        print(f"{name:34} {rates[name]:8.1f} billion a second", flush=True)
    several = (
        TILE[1] * 16 * TILE[0] * options.models / fastest(lambda: in_threads(left, right, options.threads))
    )
    print(f"{'numkong, all threads':34} {several / 1e9:8.1f} billion a second")
    limit, how = machine_limit()
    share = rates["numkong, packed bits"] / limit
    print(f"limit, {how:27} {limit:8.1f} billion a second; numkong reaches {share:.0%} of it")


def in_threads(left: Words, right: Words, threads: int) -> None:
    """Count 16 tiles in several threads."""

    def share(_: int) -> None:
        product, laid = Products(), packed(right)
        for _ in range(16 // threads):
            product.counts(left, laid)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(share, range(threads)))


def machine_limit() -> tuple[float, str]:
    """Return billions of bits a second that one core ANDs and counts in its cache, and how that was found."""
    compiler = shutil.which("cc")
    rows = np.random.default_rng(2).integers(0, 2**63, (2, 1024), dtype=np.uint64)  # 16 KiB
    if compiler is None:
        product, laid = Products(), packed(np.tile(rows[:1], (16, 1)))
        left = np.tile(rows[1:], (16, 1))
        return 256 * 65536 / fastest(lambda: product.counts(left, laid)) / 1e9, "numkong in cache"
    with tempfile.TemporaryDirectory() as name:
        source, library = Path(name) / "loop.c", Path(name) / "loop.so"
        source.write_text(LOOP)
        command = [
            compiler,
            "-O3",
            "-march=native",
            "-funroll-loops",
            "-mprefer-vector-width=512",
            "-shared",
            "-fPIC",
        ]
        if subprocess.run([*command, source, "-o", library], check=False, capture_output=True).returncode:
            command.remove("-mprefer-vector-width=512")
            subprocess.run([*command, source, "-o", library], check=True)
        loop = ctypes.CDLL(str(library)).popcounts
        loop.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        loop.restype = ctypes.c_uint64
        seconds = fastest(lambda: loop(rows[0].ctypes.data, rows[1].ctypes.data, 1024, 1000))
    return 4 * 65536 * 1000 / seconds / 1e9, "C loop in cache"


def top_figures(options: argparse.Namespace) -> bool:
    """Print memdb's time for a slice against that of the product alone; return whether the target is met."""
    every = made(options)
    part = sliced(every, options.slice)
    n_pairs = len(part.masks) * options.slice
    search = PairSearch(part, CHOICES["top"], threads=options.threads)
    times: dict[str, list[float]] = {"memdb": [], "float32": []}
    masks = bits.unpack(part.masks.view(np.uint8), part.n_models).T.astype(np.float32)
    correct = bits.unpack(part.correct.view(np.uint8), part.n_models).T.astype(np.float32)
    for _ in range(RUNS):
        started = time.perf_counter()
        blocks = list(search.blocks())
        times["memdb"].append(time.perf_counter() - started)
        started = time.perf_counter()
        counts = [correct[row : row + 512] @ masks.T for row in range(0, options.slice, 512)]
        times["float32"].append(time.perf_counter() - started)
    wrong = sum(
        int((block.sums != counts[block.number][block.test_id - 512 * block.number, block.train_id]).sum())
        for block in blocks
    )
    n_found = sum(len(block) for block in blocks)
    ratio = statistics.median(f / m for m, f in zip(times["memdb"], times["float32"], strict=True))
    print(
        f"\ntop {CHOICES['top'].top} of {options.slice:,} test examples, {n_pairs:,} pairs, {RUNS} runs in turns"
    )
    for name, seconds in times.items():
        median = statistics.median(seconds)
        whole_time = median * len(every.correct) / options.slice
        print(
            f"{name:10} {median:7.2f} s ({min(seconds):.2f} at best); {whole_time:7.1f} s for all {len(every.correct):,}"
        )
    print(f"counts     {wrong} of {n_found:,} differ")
    met = ratio >= TARGET_RATIO and wrong == 0
    print(
        f"target {TARGET_RATIO} times as fast as the product alone, is {ratio:.1f}: {'met' if met else 'MISSED'}"
    )
    return met


def sliced(every: PairBits, n_test: int) -> PairBits:
    """Return the bits with the first test examples only."""
    return PairBits(
        every.n_models,
        every.masks,
        every.train_labels,
        every.memorization,
        every.correct[:n_test],
        every.test_labels[:n_test],
        every.n_in,
        every.n_correct[:n_test],
    )


def whole_figures(options: argparse.Namespace) -> bool:
    """Print seconds and memory for all test examples; return whether memory is within bounds."""
    limit = machine_limit()[0] * options.threads
    print(f"\nlimit of AND and popcount on {options.threads} threads: {limit:.0f} billion a second")
    print(
        "all test examples                    seconds  of the limit  pairs found     pairs ranked   peak memory"
    )
    met = True
    for name in CHOICES:
        arguments = [item for item in sys.argv[1:] if item not in {"--only", "whole"}]
        command = [sys.executable, __file__, name, *arguments]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        done = json.loads(said)
        met &= done["peak"] < TARGET_BYTES
        print(
            f"{name:34} {done['seconds']:9.1f} {done['counted'] / done['seconds'] / 1e9 / limit:13.0%} "
            f"{done['found']:12,} {done['ranked']:16,} "
            f"{done['peak'] / 2**20:9,.0f} MiB",
            flush=True,
        )
    print(f"target under {TARGET_BYTES >> 30} GiB: {'met' if met else 'MISSED'}")
    return met


def command_figures(store: str) -> None:
    """Print what share of its CPU time a whole command would take to count all pairs at the machine's limit."""
    import memdb

    with memdb.open(store) as db:
        sizes = db.n_models, *(db.store.manifest.set_named(name).n_examples for name in ("train", "test"))
    best = math.prod(sizes) / machine_limit()[0] / 1e9
    print(f"\n{' x '.join(f'{n:,}' for n in sizes)}: {best:.2f} CPU seconds of AND and popcount at the limit")
    with tempfile.TemporaryDirectory() as folder:
        for words in COMMANDS:
            output = ["--store", store, "-o", str(Path(folder) / "pairs.parquet")]
            took = statistics.median(cpu_seconds(of(ROOT, ["pairs", *words, *output])) for _ in range(3))
            print(f"memdb pairs {' '.join(words):48} {took:7.2f} CPU seconds, {best / took:.0%}", flush=True)


def whole(options: argparse.Namespace) -> dict[str, float]:
    """Search all pairs; what was found of a block is let go before the next."""
    tally = "z statistics" in options.whole
    search = PairSearch(made(options), CHOICES[options.whole], tally=tally, threads=options.threads)
    started = time.perf_counter()
    found = sum(len(block) for block in search.blocks())
    seconds = time.perf_counter() - started
    counted = search.n_ranked * search.bits.n_models
    return {
        "seconds": seconds,
        "found": found,
        "ranked": search.n_ranked,
        "counted": counted,
        "peak": peak_bytes(),
    }


def fastest(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of several runs."""
    run()
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    sys.exit(main())
