"""The formats that can be imported: those of memdb, and any callable of a user's own.

A format turns a path and its arrays into `Runs` or a `ScoreFile`; what imports them knows nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from memdb.errors import InvalidInputError, MemdbError, MismatchError, NotFoundError
from memdb.interop import attack_formats, class_formats, heldout_formats, run_formats, score_formats
from memdb.interop.arrays import ArrayFile, listed, open_array, open_arrays
from memdb.interop.by_name import Arrays, names_of
from memdb.interop.foreign import foreign
from memdb.interop.gaps import missing_note
from memdb.interop.own_tables import own_table
from memdb.interop.run_formats import PLAIN_KEYS, RunFormat, Runs
from memdb.interop.score_formats import ScoreFile, ScoreFormat
from memdb.interop.table_names import is_json, is_table
from memdb.interop.views import appended

Format: TypeAlias = RunFormat | ScoreFormat
FORMATS: tuple[Format, ...] = (
    run_formats.datamodels,
    heldout_formats.correctness,
    run_formats.plain,
    heldout_formats.aux_arrays,
    attack_formats.keep_and_scores,
    attack_formats.lira_folders,
    attack_formats.privacy_meter,
    score_formats.listed_pairs,
    class_formats.pairs_by_class,
    score_formats.whole_sets,
    score_formats.c_scores,
)


def read_file(
    path: Path | Sequence[Path], labels: Path | None = None, formats: Sequence[Format] = ()
) -> Runs | ScoreFile:
    """Return the contents of a file, a folder or several files in the first format that recognizes them.

    ``labels`` is a .npy file, which a format finds as ``train_labels``. ``formats`` are the user's own: they
    are tried first, and without arrays if the file is nothing that arrays can be read from. The files of a
    folder may be runs each, or arrays that only together are something.

    Raises:
        NotFoundError: nothing is there.
        InvalidInputError: no format recognizes it, or one does and the file is not what it should be.
    """
    given = {} if labels is None else {"train_labels": open_array(labels)}
    if not isinstance(path, Path):
        if len(path) == 1:
            return read_file(path[0], labels, formats)
        return _parts(path[0].parent, list(path), given, formats)
    try:
        opened = _opened(path)
    except InvalidInputError:
        content = _recognized(path, Arrays(given), formats)
        if content is None:
            raise
        return content
    arrays = Arrays({**given, **opened})
    content = _recognized(path, arrays, (*formats, *FORMATS))
    if content is None and path.is_dir():
        if (other := foreign(path)) is not None:
            raise other
        files = _files_below(path)
        if files:
            return _parts(path, files, given, formats)
    if content is None:
        raise _unknown(path, arrays)
    return content


def _opened(path: Path) -> dict[str, ArrayFile]:
    if not (path.is_file() and (is_table(path) or is_json(path))):
        return open_arrays(path)
    from memdb.interop.tables import open_table  # noqa: PLC0415 - Arrow, which arrays do not need

    return open_table(path)


def _files_below(folder: Path) -> list[Path]:
    """Return the archives and tables below a folder, or else the folders below that hold arrays."""
    archives = [p for p in listed(folder, "**/*") if p.suffix.lower() == ".npz" or is_table(p)]
    return archives or sorted({p.parent for p in listed(folder, "*/**/*.npy")})


def _parts(
    path: Path, files: Sequence[Path], given: Mapping[str, ArrayFile], formats: Sequence[Format]
) -> Runs | ScoreFile:
    """Return what several files hold: runs in each, arrays that belong together, or a table in parts.

    A table that cannot be read, such as a log beside arrays, is left alone; an archive is not.
    """
    everything = (*formats, *FORMATS)
    opened: dict[Path, Arrays] = {}
    for file in files:
        try:
            opened[file] = Arrays({**given, **_opened(file)})
        except InvalidInputError:
            if not is_table(file) or all(map(is_table, files)):
                raise
    opened = {file: arrays for file, arrays in opened.items() if own_table(arrays) is None} or opened
    found, problems = _contents(opened, everything)
    runs = [part for part in found.values() if isinstance(part, Runs)]
    if runs and problems:
        raise problems[0]
    if runs:
        read = [file for file in files if isinstance(found.get(file), Runs)]
        others = [file for file in files if file not in read]
        runs = [*runs[:-1], replace(runs[-1], notes=(*runs[-1].notes, *_missing(read)))]
        return _but_for(heldout_formats.together(path, runs), others)
    is_one_table = all(map(is_table, opened)) and len({frozenset(arrays) for arrays in opened.values()}) == 1
    try:
        in_parts = is_one_table and any(map(_says_of_which, found.values()))
        notes = _missing(list(opened)) if in_parts else ()
        merged = Arrays(appended(list(opened.values())) if in_parts else _merged(opened))
        content = _recognized(path / files[0].name, merged, everything)
    except MismatchError:
        first = next(iter(opened))
        if found:
            raise
        raise (problems[0] if problems else _unknown(first, opened[first])) from None
    if content is None:
        raise _unknown(path, merged)
    content = replace(content, notes=(*content.notes, *notes))
    return _but_for(content, [file for file in files if file not in opened])


def _missing(shards: Sequence[Path]) -> tuple[str, ...]:
    """Return a note on shards that are not there, by the names of those that are."""
    return missing_note([path.name for path in shards]) if len({p.parent for p in shards}) == 1 else ()


def _says_of_which(content: Runs | ScoreFile) -> bool:
    """Tell whether a file names the examples of its scores: without, each part would be of the first ones."""
    return isinstance(content, ScoreFile) and content.memorized is not None and len(content.memorized) > 0


def _contents(
    opened: Mapping[Path, Arrays], formats: Sequence[Format]
) -> tuple[dict[Path, Runs | ScoreFile], list[MemdbError]]:
    """Return what each file holds that some format recognizes, and why others are refused."""
    found: dict[Path, Runs | ScoreFile] = {}
    problems: list[MemdbError] = []
    for file, arrays in opened.items():
        try:
            content = _recognized(file, arrays, formats)
        except (InvalidInputError, NotFoundError) as error:  # may be half of something
            problems.append(error)
        else:
            found |= {} if content is None else {file: content}
    return found, problems


def _but_for(content: Runs | ScoreFile, files: Sequence[Path]) -> Runs | ScoreFile:
    """Return contents with a note of the files that were not read."""
    note = f"Not read: {names_of(file.name for file in files)}."
    return replace(content, notes=(*content.notes, note)) if files else content


def _merged(opened: Mapping[Path, Arrays]) -> dict[str, ArrayFile]:
    """Return the arrays of several files; one that is in two of them must be the same.

    Raises:
        MismatchError: names the array that differs.
    """
    merged: dict[str, ArrayFile] = {}
    for file, arrays in opened.items():
        for name, array in arrays.files.items():
            earlier = merged.setdefault(name, array)
            if earlier is not array and not _same(earlier, array):
                raise MismatchError(
                    f"{file} has another {name} than {earlier.place.removesuffix(f': {name}')}",
                    hint="import files of scores one by one, each under another scores_name",
                    parameter="scores_name",
                )
    return merged


def _same(one: ArrayFile, other: ArrayFile) -> bool:
    try:
        if one.shape != other.shape:
            return False
        a, b = (file.rows(0, file.shape[0] if file.shape else 1) for file in (one, other))
    except MemdbError:
        return one.problem is not None and other.problem is not None  # neither can be read
    return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")


def _unknown(path: Path, arrays: Mapping[str, ArrayFile]) -> InvalidInputError:
    ours = own_table(arrays)
    if ours is not None:
        return InvalidInputError(f"{path} holds {ours.what}, and nothing to import", hint=ours.hint)
    if path.is_file() and (other := foreign(path)) is not None:
        return other
    if {"indices", "indptr", "shape"} <= set(arrays):
        return InvalidInputError(
            f"{path} is a sparse matrix of SciPy",
            hint="save it under its name: `np.savez(path, mask=scipy.sparse.load_npz(path).toarray())`",
        )
    return InvalidInputError(
        f"{path} has {names_of(arrays)}: none of the formats that memdb imports",
        hint=f"give a plain file with {PLAIN_KEYS}; docs/importing.md has the other formats",
    )


def _recognized(path: Path, arrays: Arrays, formats: Sequence[Format]) -> Runs | ScoreFile | None:
    is_ours = own_table(arrays) is not None
    for read in formats:
        if is_ours and read in FORMATS:  # a user's own format may know what to do with it
            continue
        looked_at = Arrays(arrays.files)
        content = read(path, looked_at)
        if content is not None and not isinstance(content, Runs | ScoreFile):
            raise InvalidInputError(
                f"the format {read} returned {type(content).__name__} for {path}",
                hint="return `Runs`, a `ScoreFile`, or None for a file in another format",
            )
        if content is not None:
            unread = [name for name in looked_at.unused if name.strip()]  # pandas has a column without name
            shown = names_of(unread)
            return replace(content, notes=(*content.notes, f"Not read: {shown}.")) if unread else content
    return None
