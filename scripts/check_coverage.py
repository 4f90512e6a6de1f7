"""Do memdb's intervals hold the truth as often as they say?

Judges the SQL that ships: ``schemas/statistics.sql`` in DuckDB, as the query layer loads it. Each model has
the example in its subset with probability 0.7; it is then correct with probability p_in, else p_out.

fixed    One look after t models. Every table (n_in, k_in, n_out, k_out) of any weight is enumerated with its
         probability, so the shares have no sampling error. Target: at least 94 % of the nominal 95 %
         intervals, among tables with both arms non-empty, hold p_in - p_out.
anytime  Streams of models, looked at after every model from the 30th to the 1,000th. Target: the interval
         ever misses p_in - p_out in at most 5 % of the streams. The standard error is printed beside it.

    python scripts/check_coverage.py
    python scripts/check_coverage.py --models 30 100 300 1000 --streams 20000

Expect about half a minute on two cores, and both targets met.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from memdb.query.intervals import fixed_z
from memdb.query.templates import template

LEVEL = 0.95
SUBSET_FRACTION = 0.7
PROBABILITIES = [(1.0, 0.0), (1.0, 0.95), (0.98, 0.02), (0.9, 0.5), (0.5, 0.5)]  # (p_in, p_out)
FIXED_TARGET = 0.94
ANYTIME_TARGET = 0.05
NEGLIGIBLE = 1e-12  # binomial probabilities below this are dropped; their total weight is checked
BATCH_STREAMS = 2000

FIXED = """
WITH tables AS (
    SELECT a.weight * b.weight AS weight,
        score_lo(k_in, n_in, k_out, n_out, z) AS lo, score_hi(k_in, n_in, k_out, n_out, z) AS hi
    FROM arm_in a JOIN arm_out b ON n_in + n_out = $t,
        (SELECT interval_z('fixed', $alpha, $fixed_z, $t, 1, 1) AS z)
    WHERE n_in > 0 AND n_out > 0
)
SELECT sum(weight) FILTER (lo <= $truth AND $truth <= hi) / sum(weight), count(*), sum(weight) FROM tables
"""
ANYTIME = """
WITH looks AS (
    SELECT stream, score_lo(k_in, n_in, k_out, n_out, z) AS lo, score_hi(k_in, n_in, k_out, n_out, z) AS hi
    FROM (SELECT *, interval_z('anytime', $alpha, $fixed_z, n_in + n_out, 1, 1) AS z FROM looked_at)
)
SELECT count(DISTINCT stream) FROM looks WHERE NOT (lo <= $truth AND $truth <= hi)
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", type=int, nargs="+", default=[30, 100, 1000], help="t of the fixed intervals"
    )
    parser.add_argument("--streams", type=int, default=10_000, help="streams for each (p_in, p_out)")
    parser.add_argument("--looks", type=int, nargs=2, default=[30, 1000], metavar=("FIRST", "LAST"))
    parser.add_argument("--seed", type=int, default=0, help="of the streams")
    options = parser.parse_args()
    connection = duckdb.connect()
    connection.execute(template("statistics.sql"))

    started = time.perf_counter()
    print("fixed: share of intervals that hold p_in - p_out (exact)")
    print("     t  p_in p_out  coverage      tables")
    lowest = 1.0
    for t, (p_in, p_out) in itertools.product(options.models, PROBABILITIES):
        coverage, n_tables = fixed_coverage(connection, t, p_in, p_out)
        lowest = min(lowest, coverage)
        print(f"{t:6} {p_in:5.2f} {p_out:5.2f}   {coverage:.5f}  {n_tables:10,}", flush=True)

    first, last = options.looks
    print(
        f"\nanytime: share of {options.streams:,} streams that miss at any of the looks {first:,} to {last:,}"
    )
    print("        p_in p_out    missed  standard error")
    most = 0.0
    for number, (p_in, p_out) in enumerate(PROBABILITIES):
        random = np.random.default_rng([options.seed, number])
        missed = (
            anytime_misses(connection, random, (p_in, p_out), (first, last), options.streams)
            / options.streams
        )
        most = max(most, missed)
        error = math.sqrt(missed * (1 - missed) / options.streams)
        print(f"       {p_in:5.2f} {p_out:5.2f}   {missed:.5f}         {error:.5f}", flush=True)

    met = {
        f"fixed coverage at least {FIXED_TARGET:.0%}, lowest {lowest:.4f}": lowest >= FIXED_TARGET,
        f"anytime ever missed at most {ANYTIME_TARGET:.0%}, highest {most:.4f}": most <= ANYTIME_TARGET,
    }
    print(f"\n{time.perf_counter() - started:.0f} seconds")
    for target, is_met in met.items():
        print(f"target {target}: {'met' if is_met else 'MISSED'}")
    return 0 if all(met.values()) else 1


def settings(p_in: float, p_out: float) -> dict[str, float]:
    return {"alpha": 1 - LEVEL, "fixed_z": fixed_z(LEVEL), "truth": p_in - p_out}


def fixed_coverage(
    connection: duckdb.DuckDBPyConnection, t: int, p_in: float, p_out: float
) -> tuple[float, int]:
    """Return the coverage after t models, and over how many tables it is a sum."""
    (size_weights,) = binomial(np.array([t]), SUBSET_FRACTION)
    n_in = np.flatnonzero(size_weights > NEGLIGIBLE)
    arms = {"in": arm(n_in, p_in, size_weights[n_in]), "out": arm(t - n_in, p_out, np.ones(len(n_in)))}
    for name, (n, k, weight) in arms.items():
        connection.register(f"arm_{name}", {f"n_{name}": n, f"k_{name}": k, "weight": weight})
    coverage, n_tables, total = one_row(connection, FIXED, settings(p_in, p_out) | {"t": t})
    both_arms = 1 - SUBSET_FRACTION**t - (1 - SUBSET_FRACTION) ** t
    assert abs(total - both_arms) < 1e-6, f"the tables not drawn weigh {both_arms - total:.1e}"
    return coverage, n_tables


def arm(
    sizes: NDArray[np.int64], p: float, weights: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return every (n, k) of an arm that has any weight: n is one of the sizes, k binomial."""
    probability = binomial(sizes, p)
    row, k = np.nonzero(probability > NEGLIGIBLE)
    return sizes[row], k, probability[row, k] * weights[row]


def binomial(n: NDArray[np.int64], p: float) -> NDArray[np.float64]:
    """Return P[k successes in n], [n, k], for k from 0 to the largest n."""
    k = np.arange(n.max() + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n.max() + 1)))])
    rest = n[:, None] - k
    possible = np.maximum(rest, 0)
    choices = log_factorial[n][:, None] - log_factorial[k] - log_factorial[possible]
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 successes of probability 0 are certain, not NaN
        log_success = np.where(k == 0, 0.0, k * np.log(p))
        log_failure = np.where(possible == 0, 0.0, possible * np.log1p(-p))
    weights: NDArray[np.float64] = np.where(rest >= 0, np.exp(choices + log_success + log_failure), 0.0)
    return weights


def anytime_misses(
    connection: duckdb.DuckDBPyConnection,
    random: np.random.Generator,
    p: tuple[float, float],
    looks: tuple[int, int],
    n_streams: int,
) -> int:
    """Return how many streams have an interval that misses the truth at any look."""
    missed = 0
    for counts in streams(random, p, looks, n_streams):
        connection.register("looked_at", counts)
        missed += one_row(connection, ANYTIME, settings(*p))[0]
    return missed


def streams(
    random: np.random.Generator, p: tuple[float, float], looks: tuple[int, int], n_streams: int
) -> Iterator[dict[str, NDArray[np.int64]]]:
    """Yield the counts that every look finds, for some streams at a time."""
    (p_in, p_out), (first, last) = p, looks
    for start in range(0, n_streams, BATCH_STREAMS):
        shape = (min(BATCH_STREAMS, n_streams - start), last)
        inside = random.random(shape) < SUBSET_FRACTION  # [stream, model]
        correct = random.random(shape) < np.where(inside, p_in, p_out)
        events = {"n_in": inside, "n_out": ~inside, "k_in": inside & correct, "k_out": ~inside & correct}
        counts = {name: event.cumsum(axis=1)[:, first - 1 :].ravel() for name, event in events.items()}
        yield {"stream": np.repeat(np.arange(shape[0]), last - first + 1), **counts}


def one_row(connection: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, float]) -> tuple[Any, ...]:
    (row,) = connection.execute(sql, parameters).fetchall()
    return tuple(row)


if __name__ == "__main__":
    sys.exit(main())
