"""The strongest pairs of a snapshot with their scores and intervals, as an Arrow table."""

from __future__ import annotations

import importlib.util
import math
import shutil
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.environment import install
from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.query import arrow, formulas
from memdb.query.examples import require_examples, require_models, require_own
from memdb.query.intervals import IntervalSpec
from memdb.query.mixture import Effects, Numbers, binned
from memdb.query.options import PairOptions
from memdb.query.outcomes import OUTCOMES
from memdb.query.pairs.kernel import Z_BINS, CpuKernel, TallyingKernel
from memdb.query.pairs.kernel_confidence import ConfidenceKernel
from memdb.query.pairs.search import PairSearch
from memdb.query.pairs.types import PairBits, PairBlock, PairChoice, PairConfidence
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates, p_values, shrunk
from memdb.query.templates import template
from memdb.store import Snapshot

PAIR_COLUMNS = [
    "train_id", "test_id", "train_label", "test_label", "same_class", "influence", "shrunk", "lo", "hi",
    "q_value", "n_in", "n_out", SUMS := "sums", "p_in", "p_out", "memorization",
]  # fmt: skip
P_STEP = 0.02  # width of a bin, in natural logarithms of p-values
P_BINS = 37_500  # down to the smallest float64
MAX_ROWS = 20_000_000  # of an answer in memory: about 2 GB
GPU_THREADS = 2  # one prepares a tile while the other waits for the device
SUMMING_THREADS = 2  # matrix products use all cores, the code between them one


@dataclass(frozen=True, slots=True)
class PairTotals:
    """Totals over a whole search, on which intervals, shrinkage and q-values of each pair found depend.

    Attributes:
        n_found: the number of pairs found.
        n_ranked: the number of pairs that they were selected from.
        z_histogram: z statistics of chance (`Candidates.null_z`) of all ranked pairs,
            int64 [other class, same class][Z_BINS].
        p_histogram: p-values of the pairs found, int64 [P_BINS] by their logarithm.
    """

    n_found: int
    n_ranked: int
    z_histogram: NDArray[np.int64]
    p_histogram: NDArray[np.int64]

    @classmethod
    def of(cls, search: PairSearch, blocks: Iterable[PairBlock]) -> PairTotals:
        """Add up all blocks of a search with ``tally``."""
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
        """Return q-values over all ranked pairs, conservative by at most 2 %.

        Ranked pairs that were not found count as less significant than any that were. Since pairs are found
        by their influence, that may be false of some; q-values are then too large, never too small.
        """
        largest = np.exp(-P_STEP * np.arange(P_BINS))  # upper bound of the p-values in each bin
        n_up_to = np.cumsum(self.p_histogram[::-1])[::-1]  # pairs found with p in this bin or below
        stepped = np.divide(largest * self.n_ranked, n_up_to, out=np.ones(P_BINS), where=n_up_to > 0)
        q: Numbers = np.minimum(np.minimum.accumulate(stepped), 1.0)[_p_bins(p)]
        return q


def _p_bins(p: Numbers) -> NDArray[np.int64]:
    with np.errstate(divide="ignore"):
        return np.minimum(-np.log(p) / P_STEP, P_BINS - 1).astype(np.int64)


def _folded(histogram: NDArray[np.int64]) -> Numbers:
    """Rebin a histogram of z to |z| as in `statistics`: bins between multiples of the width."""
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
    """The callbacks of a search."""

    progress: Callable[[int, int], None]
    stop_requested: Callable[[], bool]


def watching(options: PairOptions) -> Watching:
    """Return the callbacks among the options, or ones that do nothing."""
    return {
        "progress": options.get("progress", lambda _done, _total: None),
        "stop_requested": options.get("stop_requested", lambda: False),
    }


def search(relations: Relations, options: PairOptions) -> tuple[PairSearch, IntervalSpec]:
    """Return the search and the intervals that the options ask for.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        InvalidInputError: invalid options, or a device that this machine lacks.
    """
    interval = IntervalSpec(options.get("interval", "selected"), options.get("level", 0.95))
    choice, device = choice_of(options, relations.snapshot), options.get("device", "auto")
    kernel, threads = _kernel_on(device) if relations.outcome == "correct" else _confidence_kernel_on(device)
    search = PairSearch(pair_bits(relations), choice, tally=True, kernel=kernel, threads=threads)
    return search, interval


def choice_of(options: PairOptions, snapshot: Snapshot) -> PairChoice:
    """Return which pairs the options choose.

    Raises:
        InvalidInputError: invalid options.
        NotFoundError: memorization is to be chosen by, and the snapshot keeps nothing of it.
    """
    if options.get("min_memorization") is not None:
        require_own(snapshot)
    given = {field.name: options[field.name] for field in fields(PairChoice) if field.name in options}  # type: ignore[literal-required]
    return PairChoice(**given)


def pairs(relations: Relations, options: PairOptions) -> pa.Table:
    """Return the pairs found: by test id, then from the strongest.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        InvalidInputError: invalid options, or more pairs than fit in memory.
    """
    pair_search, interval = search(relations, options)
    blocks = collected(pair_search, options)
    return Scorer(pair_search.bits, PairTotals.of(pair_search, blocks), interval).scored(blocks)


def collected(pair_search: PairSearch, options: PairOptions) -> list[PairBlock]:
    """Return all blocks of a search.

    Raises:
        InvalidInputError: more pairs than fit in memory.
    """
    blocks: list[PairBlock] = []
    n_found = 0
    for block in pair_search.blocks(**watching(options)):
        blocks.append(block)
        n_found += len(block)
        require_fit(n_found, "write them to a .parquet file, which takes any number, or raise min_influence")
    return blocks


def require_fit(n_pairs: int, hint: str = "raise min_influence") -> None:
    """Refuse more pairs than fit in memory.

    Raises:
        InvalidInputError: there are more.
    """
    if n_pairs > MAX_ROWS:
        raise InvalidInputError(f"more than {MAX_ROWS:,} pairs pass", hint=hint, parameter="min_influence")


class Evidence:
    """Computes the columns of the relation `influence`, and what ranking needs, from the sums of pairs."""

    def __init__(self, bits: PairBits) -> None:
        self._bits = bits
        self._connection = duckdb.connect()
        weakref.finalize(self, self._connection.close)
        self._connection.execute(template("statistics.sql"))
        self._sql = template("pair_scores.sql", sums=OUTCOMES[bits.outcome].sql["sums"])

    def table(self, blocks: Sequence[PairBlock], parameters: Mapping[str, Any]) -> pa.Table:
        """Return the pairs of some blocks with their columns, in order."""
        bits = self._bits
        empty = np.zeros(0, dtype=np.int32)
        train, test = (
            np.concatenate([empty, *(getattr(block, name) for block in blocks)])
            for name in ("train_id", "test_id")
        )
        n_in, memorization = bits.n_in[train], bits.memorization[train]
        found = arrow.table(
            {
                "train_id": train,
                "test_id": test,
                "train_label": arrow.of_labels(bits.train_labels[train], known=bits.are_labelled),
                "test_label": arrow.of_labels(bits.test_labels[test], known=bits.are_labelled),
                "n_in": n_in,
                "n_out": (bits.n_models - n_in).astype(np.int32),
                "memorization": arrow.column(memorization, ~np.isnan(memorization)),
                **bits.sums_of(np.concatenate([bits.no_sums(), *(block.sums for block in blocks)]), test),
            }
        )
        self._connection.register("found", found)
        return self._connection.sql(self._sql, params=dict(parameters)).to_arrow_table()

    def candidates(self, table: pa.Table) -> Candidates:
        """Return the pairs of `table` as ranking takes them."""
        of = {name: arrow.values_of(table.column(name)) for name in table.column_names}
        hits = of["k_in"].astype(np.int64) if "k_in" in of else None
        if table.column("same_class").null_count:  # labels are unknown: all pairs are one stratum, as counted
            of["same_class"] = np.ones(table.num_rows, dtype=np.bool_)
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

    def interval_z(self, interval: IntervalSpec) -> float:
        """Return the multiplier z of the intervals of a list."""
        return formulas.interval_z(interval, self._bits.n_models) or math.nan


class Scorer:
    """Scores the pairs found; intervals, posterior means and q-values account for all ranked pairs."""

    def __init__(self, bits: PairBits, totals: PairTotals, interval: IntervalSpec) -> None:
        self._evidence = Evidence(bits)
        at = PAIR_COLUMNS.index(SUMS)
        self._columns = [*PAIR_COLUMNS[:at], *OUTCOMES[bits.outcome].shown, *PAIR_COLUMNS[at + 1 :]]
        self._totals = totals
        self._effects = totals.effects()
        self._z = self._evidence.interval_z(interval.of_list(max(1, totals.n_found), max(1, totals.n_ranked)))

    def scored(self, blocks: Sequence[PairBlock]) -> pa.Table:
        """Return the scored pairs of some blocks, in order."""
        table = self._evidence.table(blocks, {"z": self._z})
        candidates = self._evidence.candidates(table)
        added = {
            "shrunk": arrow.column(shrunk(candidates, self._effects)),
            "q_value": arrow.column(self._totals.q_values(candidates.p_value)),
        }
        return pa.Table.from_arrays(
            [added[name] if name in added else table.column(name) for name in self._columns], self._columns
        )


def pair_bits(relations: Relations) -> PairBits:
    """Read the inputs of a search from a snapshot.

    Raises:
        NotEnoughModelsError: the store has no models yet.
    """
    require_models(relations.snapshot)
    require_examples(relations.snapshot, layout.TEST)
    train = relations.ask(
        "SELECT n_in, coalesce(memorization, 'nan') AS memorization FROM memorization ORDER BY train_id"
    )
    test = relations.ask("FROM test_examples ORDER BY id")
    form = OUTCOMES[relations.outcome].sql
    s_all, q_all = (arrow.values_of(test.column(form[name])) for name in ("s_all", "q_all"))
    if relations.outcome == "correct":
        correct, confidence = relations.correct(layout.TEST), None
    else:
        correct = np.zeros((len(s_all), 0), dtype=np.uint64)
        confidence = PairConfidence(relations.confidences[layout.TEST], s_all, q_all)
    return PairBits(
        n_models=relations.snapshot.n_models,
        masks=relations.mask,
        train_labels=relations.examples[layout.TRAIN].labels,
        memorization=arrow.values_of(train.column("memorization")),
        correct=correct,
        test_labels=relations.examples[layout.TEST].labels,
        n_in=arrow.values_of(train.column("n_in")),
        n_correct=s_all,
        confidence=confidence,
        are_labelled=relations.are_labelled,
    )


def _confidence_kernel_on(device: str) -> tuple[Callable[[int, str], TallyingKernel], int | None]:
    """Return the factory of kernels for confidences, and the number of threads that it keeps busy."""
    if device not in {"auto", "cpu"}:
        raise InvalidInputError(
            f"confidences are summed on the CPU, not on {device!r}",
            hint="omit device, or use cpu",
            parameter="device",
        )
    return ConfidenceKernel, SUMMING_THREADS


def _kernel_on(device: str) -> tuple[Callable[[int, str], TallyingKernel], int | None]:
    """Return the factory of kernels on a device, and the number of threads to use (None: one per core)."""
    device = device_of(device)
    if device == "cpu":
        return CpuKernel, None
    from memdb.query.pairs.kernel_torch import kernel_on  # noqa: PLC0415 - imports torch

    return kernel_on(device), GPU_THREADS


def device_of(device: str) -> str:
    """Return the device to use, ``cpu`` or one that PyTorch can use.

    PyTorch takes seconds to import, so ``auto`` only tries it where there is an NVIDIA driver.

    Raises:
        InvalidInputError: an unknown device, or one that this machine lacks.
    """
    if device == "auto":
        if shutil.which("nvidia-smi") is None or importlib.util.find_spec("torch") is None:
            return "cpu"
        from memdb.query.pairs.kernel_torch import gpu_is_there  # noqa: PLC0415 - imports torch

        return "cuda" if gpu_is_there() else "cpu"
    if device == "cpu":
        return device
    if device.partition(":")[0] != "cuda":
        raise InvalidInputError(f"unknown device {device!r}", hint="use auto, cpu, cuda or cuda:1")
    try:
        from memdb.query.pairs.kernel_torch import kernel_on  # noqa: PLC0415 - imports torch

        kernel_on(device)
    except ImportError as error:
        raise InvalidInputError(
            f"device {device} needs PyTorch, which is not installed", hint=f"run: {install('train')}"
        ) from error
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInputError(
            f"device {device!r} cannot be used: {reason}",
            hint='use device="auto" or "cpu"',
            parameter="device",
        ) from error
    return device
