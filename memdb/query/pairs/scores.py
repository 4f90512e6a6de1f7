"""All pairs of a snapshot that are strong enough, with their scores and intervals as an Arrow table."""

from __future__ import annotations

import importlib.util
import shutil
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.format import layout
from memdb.query import arrow
from memdb.query.examples import require_examples
from memdb.query.intervals import IntervalSpec
from memdb.query.options import PairOptions
from memdb.query.pairs.kernel import Z_BINS, CpuSieve, Sieve
from memdb.query.pairs.kernel_confidence import SumSieve
from memdb.query.pairs.search import PairSearch
from memdb.query.pairs.types import PairBits, PairBlock, PairChoice, PairConfidence
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates, Effects, Numbers, binned, p_values, shrunk
from memdb.query.templates import FORMS, SHOWN_SUMS, template

PAIR_COLUMNS = [
    "train_id", "test_id", "train_label", "test_label", "same_class", "influence", "shrunk", "lo", "hi",
    "q_value", "n_in", "n_out", SUMS := "sums", "p_in", "p_out", "memorization",
]  # fmt: skip
P_STEP = 0.02  # width of a bin, in natural logarithms of p-values
P_BINS = 37_500  # to the least number there is
MAX_ROWS = 20_000_000  # of an answer in memory: some 2 GB
GPU_THREADS = 2  # one prepares while the other waits
SUMMING_THREADS = 2  # the products use all cores by themselves, what is between them one


@dataclass(frozen=True, slots=True)
class PairTotals:
    """What is said of pairs chosen by their rank depends on: all that was ranked, and all that was found.

    Attributes:
        n_found: pairs found.
        n_ranked: pairs that they were chosen from.
        z_histogram: the latter's scores in standard deviations of chance,
            int64 [other class, same class][Z_BINS].
        p_histogram: p-values of the former, int64 [P_BINS] by their logarithm.
    """

    n_found: int
    n_ranked: int
    z_histogram: NDArray[np.int64]
    p_histogram: NDArray[np.int64]

    @classmethod
    def of(cls, search: PairSearch, blocks: Iterable[PairBlock]) -> PairTotals:
        """Add up all the blocks of a search that tallies."""
        n_found = 0
        z_histogram = np.zeros((2, Z_BINS), dtype=np.int64)
        p_histogram = np.zeros(P_BINS, dtype=np.int64)
        evidence = Evidence(search.bits)
        for block in blocks:
            n_found += len(block)
            if block.z_histogram is not None:
                z_histogram += block.z_histogram
            p = p_values(evidence.candidates(evidence.table([block], {"z": 1.0})))
            p_histogram += np.bincount(_p_bins(p), minlength=P_BINS)
        return cls(n_found, search.n_ranked, z_histogram, p_histogram)

    def effects(self) -> dict[bool, Effects]:
        """Return what true effects there are among all pairs of one class, and among the others."""
        return {bool(stratum): Effects.fitted(_folded(self.z_histogram[stratum])) for stratum in (0, 1)}

    def q_values(self, p: Numbers) -> Numbers:
        """Return q-values over all pairs ranked, at most 2 % too large.

        Pairs that were not found count as ranked, and as less significant than any that were: where that is
        not so, because pairs are found by their influence, q-values are too large, never too small.
        """
        largest = np.exp(-P_STEP * np.arange(P_BINS))  # p-values in each bin are at most that
        n_up_to = np.cumsum(self.p_histogram[::-1])[::-1]  # of found pairs with p in this bin or below
        stepped = np.divide(largest * self.n_ranked, n_up_to, out=np.ones(P_BINS), where=n_up_to > 0)
        found: Numbers = np.minimum(np.minimum.accumulate(stepped), 1.0)[_p_bins(p)]
        return found


def _p_bins(p: Numbers) -> NDArray[np.int64]:
    with np.errstate(divide="ignore"):
        return np.minimum(-np.log(p) / P_STEP, P_BINS - 1).astype(np.int64)


def _folded(histogram: NDArray[np.int64]) -> Numbers:
    """Return a histogram of |z| as `ranking` has it: bins between multiples of its width, not around them."""
    half = Z_BINS // 2
    sides = (histogram[half:] + histogram[half::-1]).astype(np.float64)
    sides[0] /= 2
    n_bins = len(binned(np.empty(0)))
    folded = np.zeros(n_bins + 1)
    np.add.at(folded, np.minimum(np.arange(len(sides)), n_bins), sides / 2)
    folded[:n_bins] += folded[1:]
    folded[0] += sides[0] / 2
    return folded[:n_bins]


class Watching(TypedDict):
    """Who watches a search."""

    progress: Callable[[int, int], None]
    stop_requested: Callable[[], bool]


def watching(options: PairOptions) -> Watching:
    """Return who watches: nobody, where nobody was named."""
    return {
        "progress": options.get("progress", lambda _done, _total: None),
        "stop_requested": options.get("stop_requested", lambda: False),
    }


def search(relations: Relations, options: PairOptions) -> tuple[PairSearch, IntervalSpec]:
    """Return a search through all pairs of a snapshot, and the intervals to give.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        InvalidInputError: options that cannot be, or a device that is not there.
    """
    interval = IntervalSpec(options.get("interval", "selected"), options.get("level", 0.95))
    interval.parameters()
    given = {field.name: options[field.name] for field in fields(PairChoice) if field.name in options}  # type: ignore[literal-required]
    choice = PairChoice(**given)
    device = options.get("device", "auto")
    sieve, threads = _sieve_on(device) if relations.outcome == "correct" else _summing_on(device)
    search = PairSearch(pair_bits(relations), choice, tally=True, sieve=sieve, threads=threads)
    return search, interval


def pairs(relations: Relations, options: PairOptions) -> pa.Table:
    """Return the pairs found: by test id, then from the strongest.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        InvalidInputError: options that cannot be, or more pairs than fit in memory.
    """
    found, interval = search(relations, options)
    blocks: list[PairBlock] = []
    n_found = 0
    for block in found.blocks(**watching(options)):
        blocks.append(block)
        n_found += len(block)
        if n_found > MAX_ROWS:
            raise InvalidInputError(
                f"more than {MAX_ROWS:,} pairs pass",
                hint="write them to a .parquet file, which takes any number, or raise --min-influence",
            )
    return Scorer(found.bits, PairTotals.of(found, blocks), interval).scored(blocks)


class Evidence:
    """Gives pairs that were found by their sums the columns of the relation `influence`, and more."""

    def __init__(self, bits: PairBits) -> None:
        self._bits = bits
        self._connection = duckdb.connect()
        weakref.finalize(self, self._connection.close)
        self._connection.execute(template("statistics.sql"))
        self._sql = template("pair_scores.sql", sums=FORMS[bits.outcome]["sums"])

    def table(self, blocks: Sequence[PairBlock], parameters: Mapping[str, Any]) -> pa.Table:
        """Return the pairs of some blocks, in their order."""
        bits = self._bits
        empty = np.zeros(0, dtype=np.int32)
        train, test = (
            np.concatenate([empty, *(getattr(block, name) for block in blocks)])
            for name in ("train_id", "test_id")
        )
        n_in = bits.n_in[train]
        found = arrow.table(
            {
                "train_id": train,
                "test_id": test,
                "train_label": bits.train_labels[train],
                "test_label": bits.test_labels[test],
                "n_in": n_in,
                "n_out": (bits.n_models - n_in).astype(np.int32),
                "memorization": bits.memorization[train],
                **bits.sums_of(np.concatenate([bits.no_sums(), *(block.sums for block in blocks)]), test),
            }
        )
        self._connection.register("found", found)
        return self._connection.sql(self._sql, params=dict(parameters)).to_arrow_table()

    def candidates(self, table: pa.Table) -> Candidates:
        """Return what ranking needs of each pair."""
        of = {name: arrow.values_of(table.column(name)) for name in table.column_names}
        hits = of["k_in"].astype(np.int64) if "k_in" in of else None
        return Candidates(
            score=of["influence"],
            effect_se=of["effect_se"],
            ac_z=of["ac_z"],
            null_se=of["null_se"],
            n_in=of["n_in"].astype(np.int64),
            n_models=self._bits.n_models,
            strata=of["same_class"],
            hits=hits,
            total=None if hits is None else hits + of["k_out"],
        )

    def interval_z(self, parameters: Mapping[str, Any]) -> float:
        """Return the multiplier of the intervals."""
        sql = "SELECT interval_z($interval, $alpha, $fixed_z, $n_models, $n_shown, $n_ranked)"
        found = self._connection.execute(sql, {**parameters, "n_models": self._bits.n_models}).fetchall()
        return float(found[0][0])


class Scorer:
    """Scores pairs that were found, with intervals, shrunk scores and q-values that know of all ranked."""

    def __init__(self, bits: PairBits, totals: PairTotals, choice: IntervalSpec) -> None:
        self._evidence = Evidence(bits)
        at = PAIR_COLUMNS.index(SUMS)
        self._columns = [*PAIR_COLUMNS[:at], *SHOWN_SUMS[bits.outcome], *PAIR_COLUMNS[at + 1 :]]
        self._totals = totals
        self._effects = totals.effects()
        shown = {"n_shown": max(1, totals.n_found), "n_ranked": max(1, totals.n_ranked)}
        self._z = self._evidence.interval_z({**choice.parameters(), **shown})

    def scored(self, blocks: Sequence[PairBlock]) -> pa.Table:
        """Return a table of the pairs of some blocks, in their order."""
        table = self._evidence.table(blocks, {"z": self._z})
        candidates = self._evidence.candidates(table)
        added = {
            "shrunk": arrow.column(shrunk(candidates, self._effects)),
            "q_value": arrow.column(self._totals.q_values(p_values(candidates))),
        }
        return pa.Table.from_arrays(
            [added[name] if name in added else table.column(name) for name in self._columns], self._columns
        )


def pair_bits(relations: Relations) -> PairBits:
    """Return what pairs are counted from.

    Raises:
        NotEnoughModelsError: the store has no models yet.
    """
    if relations.snapshot.n_models == 0:
        raise NotEnoughModelsError(
            f"{relations.snapshot.url} has no models yet", hint="train some with `memdb train --add 100`"
        )
    require_examples(relations.snapshot, layout.TEST)
    train = relations.ask("SELECT n_in, memorization FROM memorization ORDER BY train_id")
    test = relations.ask("FROM test_examples ORDER BY id")
    form = FORMS[relations.outcome]
    s_all, q_all = (test.column(form[name]).to_numpy() for name in ("s_all", "q_all"))
    if relations.outcome == "correct":
        correct, confidence = relations.correct(layout.TEST), None
    else:
        correct = np.zeros((len(s_all), 0), dtype=np.uint64)
        confidence = PairConfidence(relations.confidences[layout.TEST], s_all, q_all)
    return PairBits(
        n_models=relations.snapshot.n_models,
        masks=relations.mask,
        train_labels=relations.examples[layout.TRAIN].labels,
        memorization=train.column("memorization").to_numpy(),
        correct=correct,
        test_labels=relations.examples[layout.TEST].labels,
        n_in=train.column("n_in").to_numpy(),
        n_correct=s_all,
        confidence=confidence,
    )


def _summing_on(device: str) -> tuple[Callable[[int, str], Sieve], int | None]:
    """Return what makes sieves for confidences; their products keep all cores busy from one thread."""
    if device not in {"auto", "cpu"}:
        raise InvalidInputError(
            f"confidences are summed on the CPU, not on {device!r}", hint="leave out --device, or use cpu"
        )
    return SumSieve, SUMMING_THREADS


def _sieve_on(device: str) -> tuple[Callable[[int, str], Sieve], int | None]:
    """Return what makes sieves, and how many threads have use for one.

    PyTorch, which takes seconds to import, is looked at only where there is an NVIDIA driver.
    """
    if device == "auto":
        if shutil.which("nvidia-smi") is None or importlib.util.find_spec("torch") is None:
            return CpuSieve, None
        from memdb.query.pairs.kernel_torch import gpu_is_there  # noqa: PLC0415 - imports torch

        device = "cuda" if gpu_is_there() else "cpu"
    if device == "cpu":
        return CpuSieve, None
    if device.split(":")[0] != "cuda":
        raise InvalidInputError(f"unknown device {device!r}", hint="use auto, cpu, cuda or cuda:1")
    try:
        from memdb.query.pairs.kernel_torch import sieve_on  # noqa: PLC0415 - imports torch

        return sieve_on(device), GPU_THREADS
    except ImportError as error:
        raise InvalidInputError(
            f"device {device} needs PyTorch, which is not installed", hint="run: pip install 'memdb[train]'"
        ) from error
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(
            f"device {device!r} cannot be used: {reason}", hint="use --device auto or cpu"
        ) from error
