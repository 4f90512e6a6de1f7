"""Write all pairs of a snapshot to a Parquet file, by a search that can be resumed.

The pairs of each block of test examples are saved to a folder beside the file as soon as they are found, with
a document that identifies the search and its models: the same search resumes there, any other starts anew.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memdb.errors import InvalidInputError, MemdbError, StorageError
from memdb.files import FULL, reason, replacing
from memdb.query import arrow
from memdb.query.intervals import IntervalSpec
from memdb.query.options import PairOptions
from memdb.query.pairs import scores
from memdb.query.pairs.scores import PairTotals, Scorer
from memdb.query.pairs.search import BLOCK, PairSearch
from memdb.query.pairs.types import PairBlock
from memdb.query.relations import Relations

SUFFIX = ".parquet"
VERSION = 3  # of the contents of the saved blocks
IDENTITY = "search.json"


@dataclass(frozen=True, slots=True)
class WrittenPairs:
    """The result of writing a file."""

    totals: PairTotals
    n_resumed: int  # blocks saved by an earlier run
    n_done: int
    n_blocks: int

    @property
    def complete(self) -> bool:
        """Whether the file was written; if not, the same call resumes where this one stopped."""
        return self.n_done == self.n_blocks


def written_pairs(relations: Relations, path: Path, options: PairOptions) -> WrittenPairs:
    """Write the pairs of a question to a file (see `write_pairs`)."""
    require_parquet(path)
    search, interval = scores.search(relations, options)
    return write_pairs(path, search, interval, relations.snapshot.models_sha256, **scores.watching(options))


def write_pairs(
    path: Path,
    search: PairSearch,
    interval: IntervalSpec,
    models_sha256: str,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> WrittenPairs:
    """Search, and write the pairs to a file that appears once complete, with one row group per block.

    Args:
        path: a .parquet file.
        search: the search to run or resume.
        interval: the intervals of the scores.
        models_sha256: identifies the models that are searched.
        progress: called with the number of pairs searched so far and in all.
        stop_requested: polled during the search; return True to stop. Blocks found so far are kept.

    Raises:
        InvalidInputError: another suffix, or an invalid interval or level.
        StorageError: the folder is missing, full or read-only; blocks found before are kept.
    """
    require_parquet(path)
    identity = {"models_sha256": models_sha256, **_identity(search)}
    parts = _Parts(path, identity)
    with parts.failing():
        parts.prepare()
        kept = parts.numbers()
    for block in search.blocks(kept, progress, stop_requested):
        with parts.failing():
            parts.keep(block)
    with parts.failing():
        numbers = parts.numbers()
        totals = PairTotals.of(search, map(parts.block, numbers))
        written = WrittenPairs(totals, len(kept), len(numbers), search.n_blocks)
        if written.complete:
            _assemble(path, parts, _scored(search, interval, totals, identity))
    return written


def _scored(
    search: PairSearch, interval: IntervalSpec, totals: PairTotals, identity: Mapping[str, Any]
) -> Callable[[list[PairBlock]], pa.Table]:
    """Return a function that scores blocks, with the columns that make a row readable on its own."""
    scorer = Scorer(search.bits, totals, interval)
    facts = {
        "interval": interval.kind,
        "level": interval.level,
        "outcome": search.bits.outcome,
        "n_models": search.bits.n_models,
    }
    values = [column[0] for column in arrow.of_records([facts]).columns]  # pa.scalar would import pandas
    about = {"n_ranked": totals.n_ranked, "n_found": totals.n_found, **identity}

    def scored(blocks: list[PairBlock]) -> pa.Table:
        table = scorer.scored(blocks)
        for name, value in zip(facts, values, strict=True):
            table = table.append_column(name, pa.repeat(value, table.num_rows))
        return table.replace_schema_metadata({"memdb": json.dumps(about, sort_keys=True)})

    return scored


def n_kept(path: Path) -> int:
    """Return the number of blocks that an unfinished search for this file has saved."""
    return len(list(_folder(path).glob("*.npz")))


def require_parquet(path: Path) -> None:
    """Check the suffix of a file.

    Raises:
        InvalidInputError: it is not .parquet.
    """
    if path.suffix.lower() != SUFFIX:
        raise InvalidInputError(f"{path} is not a {SUFFIX} file", hint=f"name one, such as pairs{SUFFIX}")


def _identity(search: PairSearch) -> dict[str, Any]:
    outcome = search.bits.outcome
    return {
        "version": VERSION,
        "block": BLOCK,
        "outcome": outcome,
        "tally": search.tally,
        **asdict(search.choice),
    }


def _folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.parts")


class _Parts:
    """The blocks found so far, one file each, in a folder beside the file to write."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._identity = identity
        self.folder = _folder(path)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Turn an error of the disk into a StorageError that says which blocks are kept."""
        try:
            yield
        except MemdbError:
            raise
        except OSError as error:
            kept = n_kept(self._path)
            hint = "name a file in a folder you may write to"
            if error.errno in FULL:
                hint = "free some space, or name a file on another disk"
            if kept:
                hint = f"free space and run it again: {kept} blocks of {BLOCK} test examples are kept"
            else:
                self.remove()
            raise StorageError(f"cannot write {self._path}: {reason(error)}", hint=hint) from error

    def prepare(self) -> None:
        """Create the folder, removing blocks of another search or of other models."""
        document = json.dumps(self._identity, sort_keys=True)
        identity = self.folder / IDENTITY
        if self.folder.exists() and (not identity.exists() or identity.read_text() != document):
            shutil.rmtree(self.folder)
        self.folder.mkdir(exist_ok=True)
        if not identity.exists():
            _write_whole(identity, lambda file: file.write(document.encode()))

    def keep(self, block: PairBlock) -> None:
        """Save a block atomically."""
        values: dict[str, Any] = {
            "train_id": block.train_id,
            "test_id": block.test_id,
            "sums": block.sums,
        }
        if block.z_histogram is not None:
            values["z_histogram"] = block.z_histogram
        _write_whole(self.folder / f"{block.number:08d}.npz", lambda file: np.savez(file, **values))

    def numbers(self) -> frozenset[int]:
        """Return the numbers of the saved blocks; unreadable files are removed."""
        numbers = set()
        for path in self.folder.glob("*.npz"):
            try:
                numbers.add(self.block(int(path.stem)).number)
            except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
                path.unlink()
        return frozenset(numbers)

    def block(self, number: int) -> PairBlock:
        """Read a saved block."""
        with (self.folder / f"{number:08d}.npz").open("rb") as file, np.load(file) as arrays:
            values = dict(arrays)
        histogram = values.pop("z_histogram", None)
        return PairBlock(number, **values, z_histogram=histogram)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _assemble(path: Path, parts: _Parts, scored: Callable[[list[PairBlock]], pa.Table]) -> None:
    with replacing(path) as temporary, pq.ParquetWriter(temporary, scored([]).schema) as file:
        for number in sorted(parts.numbers()):
            block = parts.block(number)
            if len(block):
                file.write_table(scored([block]))
    parts.remove()


def _write_whole(path: Path, write: Callable[[Any], object]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        write(file)
