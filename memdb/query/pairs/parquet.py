"""All pairs of a snapshot as a Parquet file: what was found stays beside it until the file is whole.

A search may take long. The pairs of each block of test examples are kept in a folder beside the file as
soon as they are found, under a document that says what was searched for and through which models: the same
search goes on there, another one starts anew.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memdb.errors import InvalidInputError, MemdbError, StorageError
from memdb.files import FULL, reason, replacing
from memdb.query.intervals import IntervalSpec
from memdb.query.options import PairOptions
from memdb.query.pairs import scores
from memdb.query.pairs.scores import PairTotals, Scorer
from memdb.query.pairs.search import BLOCK, PairSearch
from memdb.query.pairs.types import PairBlock
from memdb.query.relations import Relations

if TYPE_CHECKING:
    pass

SUFFIX = ".parquet"
VERSION = 3  # of what parts hold
IDENTITY = "search.json"


@dataclass(frozen=True, slots=True)
class WrittenPairs:
    """What writing a file came to."""

    totals: PairTotals
    n_resumed: int  # blocks that were there already
    n_done: int
    n_blocks: int

    @property
    def complete(self) -> bool:
        """Tell whether the file was written; if not, the same call goes on where this one was stopped."""
        return self.n_done == self.n_blocks


def written_pairs(relations: Relations, path: Path, options: PairOptions) -> WrittenPairs:
    """Write the pairs to a file, as `write_pairs` does, and tell what it came to."""
    require_parquet(path)
    search, interval = scores.search(relations, options)
    return write_pairs(path, search, interval, relations.snapshot.models_sha256, **scores.watching(options))


def write_pairs(
    path: Path,
    search: PairSearch,
    choice: IntervalSpec,
    models_sha256: str,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> WrittenPairs:
    """Search, and write the pairs to a file that appears when it is whole; one row group a block.

    Args:
        path: a .parquet file.
        search: where and what for.
        choice: the intervals.
        models_sha256: which models are searched.
        progress: hears how many pairs of how many were looked at.
        stop_requested: ends the search; what was found stays for the next time.

    Raises:
        InvalidInputError: another suffix, or an interval or level that cannot be.
        StorageError: the folder is missing, full or not writable; what was found before stays.
    """
    require_parquet(path)
    choice.parameters()
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
            facts = {
                "interval": choice.kind,
                "level": choice.level,
                "outcome": search.bits.outcome,
                "n_models": search.bits.n_models,
            }
            scorer = Scorer(search.bits, totals, choice)
            _assemble(
                path, parts, lambda blocks: _with_facts(scorer.scored(blocks), facts, written, identity)
            )
    return written


def n_kept(path: Path) -> int:
    """Return how many blocks of test examples an unfinished search for this file has kept."""
    return len(list(_folder(path).glob("*.npz")))


def require_parquet(path: Path) -> None:
    """Refuse another suffix.

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
    """The blocks found so far, one file each, in a folder beside the file to come."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._identity = identity
        self.folder = _folder(path)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Say what is wrong, and what is kept, where the disk refuses."""
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
        """Make the folder; parts of another search, or of other models, are removed."""
        document = json.dumps(self._identity, sort_keys=True)
        identity = self.folder / IDENTITY
        if self.folder.exists() and (not identity.exists() or identity.read_text() != document):
            shutil.rmtree(self.folder)
        self.folder.mkdir(exist_ok=True)
        if not identity.exists():
            _write_whole(identity, lambda file: file.write(document.encode()))

    def keep(self, block: PairBlock) -> None:
        """Keep a block: whole, or not at all."""
        values: dict[str, Any] = {
            "train_id": block.train_id,
            "test_id": block.test_id,
            "sums": block.sums,
        }
        if block.z_histogram is not None:
            values["z_histogram"] = block.z_histogram
        _write_whole(self.folder / f"{block.number:08d}.npz", lambda file: np.savez(file, **values))

    def numbers(self) -> frozenset[int]:
        """Return which blocks were kept; what cannot be read was not."""
        found = set()
        for part in self.folder.glob("*.npz"):
            try:
                found.add(self.block(int(part.stem)).number)
            except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
                part.unlink()
        return frozenset(found)

    def block(self, number: int) -> PairBlock:
        """Read a block."""
        with (self.folder / f"{number:08d}.npz").open("rb") as file, np.load(file) as part:
            values = dict(part)
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


def _with_facts(
    table: pa.Table, facts: Mapping[str, Any], written: WrittenPairs, identity: Mapping[str, Any]
) -> pa.Table:
    """Add what a row needs to be read alone, and to the file what it is the answer to."""
    for name, value in facts.items():
        table = table.append_column(name, pa.repeat(pa.scalar(value), table.num_rows))
    about = {"n_ranked": written.totals.n_ranked, "n_found": written.totals.n_found, **identity}
    return table.replace_schema_metadata({"memdb": json.dumps(about, sort_keys=True)})


def _write_whole(path: Path, write: Callable[[Any], object]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        write(file)
