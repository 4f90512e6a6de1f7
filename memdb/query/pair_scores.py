"""All pairs of a snapshot that are strong enough, with their scores and intervals as an Arrow table."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TypedDict

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb import layout
from memdb.errors import InvalidInput, NotEnoughModels
from memdb.query import columns
from memdb.query.connection import Relations, schema
from memdb.query.intervals import IntervalChoice
from memdb.query.pairs import PairBits, PairBlock, PairChoice, PairSearch
from memdb.query.sieve import Z_BINS, CpuSieve, Sieve

MAX_ROWS = 20_000_000  # of an answer in memory: some 2 GB
GPU_THREADS = 2  # one prepares while the other waits


@dataclass(frozen=True, slots=True)
class PairTotals:
    """How many pairs were found of how many ranked, and the z statistics of these where they were tallied.

    That is what intervals, and whatever else is said of pairs that were chosen by their rank, depend on.
    """

    n_found: int
    n_ranked: int
    z_histogram: NDArray[np.int64] | None = None  # [other class, same class][Z_BINS]

    @classmethod
    def of(cls, search: PairSearch, blocks: Iterable[PairBlock]) -> PairTotals:
        """Add up all the blocks of a search."""
        n_found, histogram = 0, np.zeros((2, Z_BINS), dtype=np.int64)
        for block in blocks:
            n_found += len(block)
            if block.z_histogram is not None:
                histogram += block.z_histogram
        return cls(n_found, search.n_ranked, histogram if search.tally else None)


class PairOptions(TypedDict, total=False):
    """What `memdb.Database.pairs` can be told: the fields of `PairChoice`, and how to go about it.

    Attributes:
        level, interval: of the intervals; ``selected`` where not given, for the pairs found of all ranked.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        observe: hears how many pairs of how many were looked at.
        stop_requested: asked all the time; true ends the search.
    """

    top: int | None
    min_influence: float | None
    min_memorization: float | None
    same_class: bool
    direction: str
    level: float
    interval: str
    device: str
    observe: Callable[[int, int], None]
    stop_requested: Callable[[], bool]


class Watching(TypedDict):
    """Who watches a search."""

    observe: Callable[[int, int], None]
    stop_requested: Callable[[], bool]


def watching(options: PairOptions) -> Watching:
    """Return who watches: nobody, where nobody was named."""
    return {
        "observe": options.get("observe", lambda _done, _total: None),
        "stop_requested": options.get("stop_requested", lambda: False),
    }


def search(relations: Relations, options: PairOptions) -> tuple[PairSearch, IntervalChoice]:
    """Return a search through all pairs of a snapshot, and the intervals to give.

    Raises:
        NotEnoughModels: the store has no models yet.
        InvalidInput: options that cannot be, or a device that is not there.
    """
    interval = IntervalChoice(options.get("interval", "selected"), options.get("level", 0.95))
    interval.parameters()
    given = {field.name: options[field.name] for field in fields(PairChoice) if field.name in options}  # type: ignore[literal-required]
    choice = PairChoice(**given)
    sieve, threads = _sieve_on(options.get("device", "auto"))
    return PairSearch(pair_bits(relations), choice, sieve=sieve, threads=threads), interval


def pairs(relations: Relations, options: PairOptions) -> pa.Table:
    """Return the pairs found: by test id, then from the strongest.

    Raises:
        NotEnoughModels: the store has no models yet.
        InvalidInput: options that cannot be, or more pairs than fit in memory.
    """
    found, interval = search(relations, options)
    blocks: list[PairBlock] = []
    n_found = 0
    for block in found.blocks(**watching(options)):
        blocks.append(block)
        n_found += len(block)
        if n_found > MAX_ROWS:
            raise InvalidInput(
                f"more than {MAX_ROWS:,} pairs pass",
                hint="write them to a .parquet file, which takes any number, or raise --min-influence",
            )
    return Scorer(found.bits, PairTotals.of(found, blocks), interval).scored(blocks)


class Scorer:
    """Gives pairs that were found by their counts the columns of the relation `influence`."""

    def __init__(self, bits: PairBits, totals: PairTotals, choice: IntervalChoice) -> None:
        self._bits = bits
        self._parameters = {
            "n_shown": totals.n_found,
            "n_ranked": totals.n_ranked,
            **choice.parameters(),
        }

    def scored(self, blocks: Sequence[PairBlock]) -> pa.Table:
        """Return a table of the pairs of some blocks, in their order."""
        bits = self._bits
        empty = np.zeros(0, dtype=np.int32)
        train, test, k_in = (
            np.concatenate([empty, *(getattr(block, name) for block in blocks)])
            for name in ("train_id", "test_id", "k_in")
        )
        n_in = bits.n_in[train]
        found = columns.table(
            {
                "train_id": train,
                "test_id": test,
                "train_label": bits.train_labels[train],
                "test_label": bits.test_labels[test],
                "n_in": n_in,
                "n_out": (bits.n_models - n_in).astype(np.int32),
                "n_correct": bits.n_correct[test],
                "k_in": k_in,
                "memorization": bits.memorization[train],
            }
        )
        with duckdb.connect() as connection:
            connection.execute(schema("statistics.sql"))
            connection.register("found", found)
            table: pa.Table = connection.sql(
                schema("pair_scores.sql"), params=self._parameters
            ).to_arrow_table()
            return table


def pair_bits(relations: Relations) -> PairBits:
    """Return what pairs are counted from.

    Raises:
        NotEnoughModels: the store has no models yet.
    """
    if relations.snapshot.n_models == 0:
        raise NotEnoughModels(
            f"{relations.snapshot.url} has no models yet", hint="train some with `memdb train --add 100`"
        )
    train = relations.ask("SELECT n_in, memorization FROM memorization ORDER BY train_id")
    test = relations.ask("SELECT n_correct FROM test_examples ORDER BY id")
    return PairBits(
        n_models=relations.snapshot.n_models,
        masks=relations.mask,
        train_labels=relations.examples[layout.TRAIN].labels,
        memorization=train.column("memorization").to_numpy(),
        correct=relations.correct[layout.TEST],
        test_labels=relations.examples[layout.TEST].labels,
        n_in=train.column("n_in").to_numpy(),
        n_correct=test.column("n_correct").to_numpy(),
    )


def _sieve_on(device: str) -> tuple[Callable[[int, str], Sieve], int | None]:
    """Return what makes sieves, and how many threads have use for one.

    PyTorch, which takes seconds to import, is looked at only where there is an NVIDIA driver.
    """
    if device == "auto":
        if shutil.which("nvidia-smi") is None or importlib.util.find_spec("torch") is None:
            return CpuSieve, None
        from memdb.query.sieve_torch import gpu_is_there  # noqa: PLC0415 - imports torch

        device = "cuda" if gpu_is_there() else "cpu"
    if device == "cpu":
        return CpuSieve, None
    if device.split(":")[0] != "cuda":
        raise InvalidInput(f"unknown device {device!r}", hint="use auto, cpu, cuda or cuda:1")
    try:
        from memdb.query.sieve_torch import sieve_on  # noqa: PLC0415 - imports torch

        return sieve_on(device), GPU_THREADS
    except ImportError as error:
        raise InvalidInput(
            f"device {device} needs PyTorch, which is not installed", hint="run: pip install 'memdb[train]'"
        ) from error
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(
            f"device {device!r} cannot be used: {reason}", hint="use --device auto or cpu"
        ) from error
