"""Export a store's contents to files that other people's code reads."""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from memdb.errors import AlreadyExistsError, InvalidInputError, NotEnoughModelsError, NotFoundError
from memdb.files import writing
from memdb.format import bits, layout
from memdb.format.manifest import LOGIT_CONFIDENCE
from memdb.interop.run_formats import DEFINED
from memdb.query.arrow import values_of
from memdb.query.examples import require_labels, require_own
from memdb.query.imported_scores import TableRelations
from memdb.query.relations import Relations
from memdb.query.udfs import Words
from memdb.storage.local import LocalStorage
from memdb.store import Snapshot
from memdb.store.read_documents import require_outside
from memdb.wording import count, verb

MODELS_AT_ONCE = 256
PAIRS_AT_ONCE = 4 << 20  # of imported scores
TABLES = (".parquet", ".csv", ".npz")
LISTS = (".csv", ".parquet", ".json", ".ndjson", ".txt", "")
RUNS = (".npz", "")  # or a folder of .npy files
WRITTEN = {  # the suffixes of what can be exported
    "memorization": TABLES, "pairs": TABLES, "fz-pairs": (".npz",), "fz-classes": (".npz",), "models": RUNS,
    "lira": RUNS, "ids": LISTS,
}  # fmt: skip
Observe = Callable[[int, int], None]
Members = Mapping[int, tuple[NDArray[np.int64], NDArray[np.int64]]]  # the rows of each class, in both sets


@dataclass(frozen=True)
class Exported:
    """What was written where."""

    path: Path
    arrays: Mapping[str, tuple[int, ...]]  # their shapes by name


def require_destination(path: Path, what: str) -> str:
    """Refuse a destination that does not suit ``what`` or holds something else; return its suffix.

    Raises:
        InvalidInputError: an unknown thing to export, a suffix that does not suit it, or a path inside a
            store.
        AlreadyExistsError: a folder with other things in it.
    """
    if what not in WRITTEN:
        raise InvalidInputError(f"cannot export {what!r}", hint=f"use one of {', '.join(WRITTEN)}")
    suffix = path.suffix.lower()
    if suffix not in WRITTEN[what]:
        other = "one without a suffix" if what == "ids" else "a folder"
        names = ", ".join(item or other for item in WRITTEN[what])
        raise InvalidInputError(f"{what} cannot be written to {path}", hint=f"name a file or folder: {names}")
    if suffix == "" and what != "ids" and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise AlreadyExistsError(f"{path} exists and is not an empty folder", hint="name a new folder")
    if (suffix or what == "ids") and path.is_dir():
        raise AlreadyExistsError(f"{path} is a folder", hint="name a file")
    require_outside(LocalStorage(path.absolute(), str(path)))
    return suffix


def write_table(path: Path, table: pa.Table, facts: Mapping[str, str | float | int]) -> Exported:
    """Write the rows of a relation, with what each needs to be read alone, as .parquet or .csv.

    Raises:
        StorageError: the folder is missing, full or not writable.
    """
    for name, value in facts.items():
        table = table.append_column(name, pa.array([value] * table.num_rows))
    with writing(path) as temporary:
        if path.suffix.lower() == ".parquet":
            pq.write_table(table, temporary)
        else:
            pa_csv.write_csv(table, temporary)
    return Exported(path, dict.fromkeys(table.column_names, (table.num_rows,)))


def write_columns(path: Path, table: pa.Table) -> Exported:
    """Write the rows of a relation as one array a column; NaN stands for NULL scores.

    Raises:
        StorageError: the folder is missing, full or not writable.
    """
    arrays = {name: _filled(table.column(name)) for name in table.column_names}
    return _saved(path, arrays)


def _filled(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array([value or "" for value in column.to_pylist()], dtype=np.str_)
    values = np.array(values_of(column))
    if column.null_count:
        missing = np.array([value is None for value in column.to_pylist()])
        values = values.astype(np.float64)
        values[missing] = np.nan
    return values


def write_fz_pairs(path: Path, table: pa.Table) -> Exported:
    """Write pairs as Feldman and Zhang published theirs: ``tr_idx``, ``tt_idx``, ``infl``, ``mem``."""
    arrays = {
        "tr_idx": values_of(table.column("train_id")).astype(np.int64),
        "tt_idx": values_of(table.column("test_id")).astype(np.int64),
        "infl": _filled(table.column("influence")).astype(np.float64),
        "mem": _filled(table.column("memorization")).astype(np.float64),
    }
    return _saved(path, arrays)


def write_fz_classes(path: Path, relations: Relations, progress: Observe) -> Exported:
    """Write memorization, and the influences within each class, in the format of Feldman and Zhang's release.

    Raises:
        NotEnoughModelsError: no models, or an example in every subset or in none: the format has no NULL.
        NotFoundError: there are no test examples.
    """
    snapshot = relations.snapshot
    if snapshot.manifest.set_named(layout.TEST).n_examples == 0:
        raise NotFoundError(f"{snapshot.url} has no test examples", hint="export memorization, or models")
    require_own(snapshot)
    require_labels(snapshot, are_labelled=relations.are_labelled)
    if isinstance(relations, TableRelations):
        scores = relations.scores.memorization
    else:
        scores = _filled(relations.ask("SELECT memorization FROM memorization ORDER BY train_id").column(0))
    n_missing = int(np.isnan(scores).sum())
    if n_missing:
        raise NotEnoughModelsError(
            f"{count(n_missing, 'training example')} of {snapshot.url} {verb(n_missing, 'was', 'were')} "
            f"in every subset or in none",
            hint="train more models until all have a score; their layout has no place for missing ones",
        )
    train, test = (relations.examples[name].labels for name in (layout.TRAIN, layout.TEST))
    arrays: dict[str, NDArray[Any]] = {
        "tr_mem": scores,
        "tr_labels": train.astype(np.int64),
        "tt_labels": test.astype(np.int64),
    }
    labels = np.unique(np.concatenate([train, test])).tolist()
    members = {label: (np.flatnonzero(train == label), np.flatnonzero(test == label)) for label in labels}
    if isinstance(relations, TableRelations):
        matrices = _given_matrices(relations, members, progress)
    else:
        matrices = _own_matrices(relations, members, progress)
    for label, (rows, columns) in members.items():
        arrays[f"tr_classidx_{label}"], arrays[f"tt_classidx_{label}"] = rows, columns
        arrays[f"infl_matrix_class{label}"] = matrices[label]
    progress(1, 1)
    return _saved(path, arrays, compressed=True)


def _own_matrices(
    relations: Relations, members: Members, progress: Observe
) -> dict[int, NDArray[np.float64]]:
    """Return the influences within each class, [train, test]."""
    found = {}
    for done, (label, (rows, columns)) in enumerate(members.items()):
        progress(done, len(members))
        found[label] = influence_matrix(relations, rows, columns)
    return found


def influence_matrix(
    relations: Relations, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the influence of some training on some test examples, [train, test], of the outcome correct."""
    mask, correct = relations.mask[rows], relations.correct(layout.TEST)
    n_in = bits.count(mask).astype(np.float64)
    n_out = relations.snapshot.n_models - n_in
    matrix = np.empty((len(rows), len(columns)))
    for place, column in enumerate(columns.tolist()):
        k_in = bits.count_and(mask, correct[column])
        k_out = int(bits.count(correct[column])) - k_in
        matrix[:, place] = k_in / n_in - k_out / n_out
    return matrix


def _given_matrices(
    relations: TableRelations, members: Members, progress: Observe
) -> dict[int, NDArray[np.float64]]:
    """Return the imported influences within each class, [train, test]; all of them must be there.

    Pairs are read once, many test examples at a time.
    """
    scores = relations.scores
    found = {label: np.full((len(rows), len(columns)), np.nan) for label, (rows, columns) in members.items()}
    place = {}  # of each example within its class
    for side, name in enumerate((layout.TRAIN, layout.TEST)):
        place[name] = np.zeros(len(relations.examples[name]), dtype=np.int64)
        for ids in (both[side] for both in members.values()):
            place[name][ids] = np.arange(len(ids))
    train_labels, test_labels = (relations.examples[name].labels for name in (layout.TRAIN, layout.TEST))
    for first, last in scores.bands(PAIRS_AT_ONCE):
        progress(first, scores.n_test)
        train, test, influence = scores.pairs_of(first, last)
        of_class = np.where(train_labels[train] == test_labels[test], train_labels[train], -1)
        for label in np.unique(of_class[of_class >= 0]).tolist():
            chosen = of_class == label
            rows, columns = place[layout.TRAIN][train[chosen]], place[layout.TEST][test[chosen]]
            found[label][rows, columns] = influence[chosen]
    missing = sum(int(np.isnan(matrix).sum()) for matrix in found.values())
    if missing:
        raise NotFoundError(
            f"{scores.table.name} lacks {count(missing, 'pair')} of one class",
            hint='export those that it has: what="fz-pairs"',
            parameter="what",
        )
    return found


def write_models(path: Path, relations: Relations, what: str, progress: Observe) -> Exported:
    """Write the runs themselves, [models, examples]: as memdb imports them, or as the attack's arrays.

    ``models``: mask, train_correct, test_correct and every other outcome kept, such as
    train_logit_confidence, with their definitions, labels, keys and class names. ``lira``: keep and scores.
    A folder of .npy files, or an .npz.

    Raises:
        NotEnoughModelsError: the store has no models.
        NotFoundError: the attack's arrays are asked for, and no logit confidences are kept.
        StorageError: the folder is missing, full or not writable.
    """
    snapshot = relations.snapshot
    if snapshot.n_models == 0:
        raise NotEnoughModelsError(f"{snapshot.url} has no models yet", hint="train some with `memdb train`")
    arrays = {"lira": _lira, "models": _runs}[what](relations)
    total = sum(math.prod(shape) for shape, _, _ in arrays.values())
    shapes: dict[str, tuple[int, ...]] = {}
    done = 0
    with writing(path) as temporary:
        folder = temporary.with_suffix(".arrays") if path.suffix else temporary
        folder.mkdir()
        try:
            for name, (shape, dtype, bands) in arrays.items():
                with (folder / f"{name}.npy").open("wb") as file:
                    for n_written in _written(file, shape, np.dtype(dtype), bands):
                        done += n_written
                        progress(done, total)
                shapes[name] = shape
            if path.suffix:
                _zipped(folder, temporary)
        finally:
            if folder != temporary:
                shutil.rmtree(folder, ignore_errors=True)
    return Exported(path, shapes)


Bands = Iterator[tuple[int, int, NDArray[Any]]]  # the first row and column, and the values from there on
Described = dict[str, tuple[tuple[int, ...], Any, Bands]]


def _runs(relations: Relations) -> Described:
    snapshot = relations.snapshot
    manifest = snapshot.manifest
    n_train = manifest.train.n_examples
    arrays: Described = {"mask": _bit_array(snapshot, relations.mask, n_train)}
    held = [(o.name, o.kind, o.dtype, o.definition) for o in manifest.outcomes]
    arrays[DEFINED] = _plain(np.array(held, dtype=np.str_))
    for path, (outcome, n_examples) in manifest.arrays().items():
        name = path.replace("/", "_")
        if outcome.kind == "bit":
            arrays[name] = _bit_array(snapshot, snapshot.words(path), n_examples)
        elif snapshot.is_complete(path):
            arrays[name] = _real_array(snapshot, path, n_examples, outcome.dtype)
    for info in manifest.sets:
        examples = relations.examples[info.name]
        arrays[f"{info.name}_keys"] = _plain(np.array(examples.keys, dtype=np.str_))
        if not examples.are_labelled:
            continue
        arrays[f"{info.name}_labels"] = _plain(examples.labels.astype(np.int64))
        if examples.class_names:
            arrays["class_names"] = _plain(np.array(examples.class_names, dtype=np.str_))
    return arrays


def _lira(relations: Relations) -> Described:
    snapshot = relations.snapshot
    path = f"{layout.TRAIN}/{LOGIT_CONFIDENCE.name}"
    n_train = snapshot.manifest.train.n_examples
    if path not in snapshot.manifest.arrays() or not snapshot.is_complete(path):
        raise NotFoundError(
            f"{snapshot.url} keeps no logit confidences of all models",
            hint='export models without them: what="models"',
            parameter="what",
        )
    arrays: Described = {
        "keep": _bit_array(snapshot, relations.mask, n_train),
        "scores": _real_array(snapshot, path, n_train, LOGIT_CONFIDENCE.dtype),
    }
    if relations.are_labelled:
        arrays["train_labels"] = _plain(relations.examples[layout.TRAIN].labels.astype(np.int64))
    return arrays


def _bit_array(snapshot: Snapshot, words: Words, n_examples: int) -> tuple[tuple[int, ...], Any, Bands]:
    def bands() -> Bands:
        packed = words.view(np.uint8)
        for start in range(0, snapshot.n_models, MODELS_AT_ONCE):
            n_models = min(MODELS_AT_ONCE, snapshot.n_models - start)
            some = packed[:, start // 8 : (start + n_models + 7) // 8]
            yield start, 0, bits.unpack(some, n_models)

    return (snapshot.n_models, n_examples), np.bool_, bands()


def _real_array(
    snapshot: Snapshot, path: str, n_examples: int, dtype: str
) -> tuple[tuple[int, ...], Any, Bands]:
    def bands() -> Bands:
        height = snapshot.band_height(path)
        for start in range(0, n_examples, height):
            stop = min(n_examples, start + height)
            yield 0, start, snapshot.outcome_values(path, (start, stop)).T

    return (snapshot.n_models, n_examples), np.dtype(dtype), bands()


def _plain(values: NDArray[Any]) -> tuple[tuple[int, ...], Any, Bands]:
    return values.shape, values.dtype, iter([(0, 0, values)])


def _written(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], bands: Bands) -> Iterator[int]:
    """Write an array band by band, yielding how many values were written each time.

    By plain writes: on a full disk, memory that is mapped to a file ends the process without a word.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    start, width = file.tell(), math.prod(shape[1:])
    for row, column, values in bands:
        band = np.ascontiguousarray(values, dtype)
        whole_rows = band.shape[1:] == shape[1:]
        for place, some in enumerate([band] if whole_rows else band):
            file.seek(start + ((row + place) * width + column) * dtype.itemsize)
            file.write(some.tobytes())
        yield band.size


def _saved(path: Path, arrays: Mapping[str, NDArray[Any]], *, compressed: bool = False) -> Exported:
    save: Any = np.savez_compressed if compressed else np.savez
    with writing(path) as temporary, temporary.open("wb") as file:
        save(file, **arrays)
    return Exported(path, {name: values.shape for name, values in arrays.items()})


def _zipped(folder: Path, path: Path) -> None:
    """Gather the .npy files of a folder in an .npz, uncompressed so that it can be mapped."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for file in sorted(folder.glob("*.npy")):
            archive.write(file, file.name)
            file.unlink()
