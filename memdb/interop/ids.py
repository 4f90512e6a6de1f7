"""Lists of training examples: written by `Database.export`, and what a new store is made with or without.

A file names examples by key, or by their rows in the data set. Keys are what two stores of parts of one data
set have in common, so they count where a file has both.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.datasets import Dataset
from memdb.errors import InvalidInputError, NotFoundError
from memdb.files import writing
from memdb.query.answers import Answers
from memdb.query.chosen import examples_meeting
from memdb.query.intervals import IntervalSpec
from memdb.render.answer import Answer

ID_COLUMNS, KEY_COLUMNS, ACTION = ("train_id", "id"), ("key", "train_key"), "action"
ACTIONS = {"only_ids": "keep", "without_ids": "drop"}
MAX_BYTES = 1 << 30
ROW = re.compile(r"[0-9]{1,10}")
FORMATS = "give text with a key a line, or .csv, .parquet or .json with a column train_id or key"

Ids = NDArray[np.int32]
Given = str | Path | Iterable[int] | Iterable[str]


@dataclass(frozen=True)
class Named:
    """Training examples as somebody named them.

    Attributes:
        source: the file or argument that names them, for messages.
        names: keys, or rows as decimal numbers.
        by: ``key``, ``train_id``, or an empty string where either may be meant.
        action: what the file says they are for: ``keep``, ``drop`` or nothing.
    """

    source: str
    names: Sequence[str]
    by: str
    action: str = ""


def part_of(data: Dataset, name: str, only: Named | None, without: Named | None) -> Ids:
    """Return the rows of the training examples that are left, in ascending order.

    Raises:
        InvalidInputError: both are given; examples that do not exist, or twice; nothing, everything or a
            whole class is excluded.
    """
    named, parameter = (only, "only_ids") if only is not None else (without, "without_ids")
    if named is None or (only is not None and without is not None):
        raise InvalidInputError(
            "only_ids and without_ids are both given",
            hint="give the examples to keep, or those to exclude",
            parameter=("only_ids", "without_ids"),
        )
    if named.action not in {"", ACTIONS[parameter]}:
        other = next(other for other, action in ACTIONS.items() if action == named.action)
        raise InvalidInputError(
            f"{named.source} lists examples to {named.action}, and {parameter} takes those to "
            f"{ACTIONS[parameter]}",
            hint=f"give it as {other}",
            parameter=(parameter, other),
        )
    rows = _rows_named(named, data.train.keys, name, parameter)
    is_kept = np.full(len(data.train), parameter == "without_ids")
    is_kept[rows] = parameter == "only_ids"
    _require_a_part(is_kept, data, named, parameter)
    return np.flatnonzero(is_kept).astype(np.int32)


def _require_a_part(is_kept: NDArray[np.bool_], data: Dataset, named: Named, parameter: str) -> None:
    labels = data.train.labels
    lost = np.setdiff1d(labels, labels[is_kept])
    if is_kept.all():
        problem = "excludes no training example"
    elif not is_kept.any():
        problem = "excludes every training example"
    elif len(lost):
        label = int(lost[0])
        called = data.class_names[label] if data.class_names else str(label)
        problem = f"excludes all {int((labels == label).sum()):,} training examples of class {called}"
    else:
        return
    raise InvalidInputError(f"{named.source} {problem}", hint="name others, or fewer", parameter=parameter)


def _rows_named(named: Named, keys: Sequence[str], dataset: str, parameter: str) -> NDArray[np.int64]:
    """Return the rows of the examples that are named.

    Raises:
        InvalidInputError: one that does not exist, one named twice, or none.
    """
    if not named.names:
        raise InvalidInputError(f"{named.source} names no example", hint=FORMATS, parameter=parameter)
    row_of = {key: row for row, key in enumerate(keys)}
    by_key = [row_of.get(name) for name in named.names] if named.by != "train_id" else [None]
    by_row = [_row(name, len(keys)) for name in named.names] if named.by != "key" else [None]
    rows = by_row if None in by_key else by_key
    if None not in by_key and None not in by_row and by_key != by_row:
        raise InvalidInputError(
            f"{named.source} has numbers that are keys of {dataset} and rows of others",
            hint="say which: put a line `key` or `train_id` above them",
            parameter=parameter,
        )
    if None in rows:
        tried = by_key if named.by == "key" or not any(row is not None for row in by_row) else by_row
        odd = named.names[tried.index(None)]
        raise InvalidInputError(
            f"{named.source} names {odd!r}, and {dataset} has no such training example",
            hint=f"its ids go from 0 to {len(keys) - 1:,}, its keys look like {keys[0]!r}",
            parameter=parameter,
        )
    found = np.array(rows, dtype=np.int64)
    ids, times = np.unique(found, return_counts=True)
    if len(ids) < len(found):
        twice = keys[int(ids[times > 1][0])]
        raise InvalidInputError(
            f"{named.source} names the training example {twice!r} more than once",
            hint="name each once; two lists may have been put together",
            parameter=parameter,
        )
    return found


def _row(name: str, n_examples: int) -> int | None:
    row = int(name) if ROW.fullmatch(name) else n_examples
    return row if row < n_examples else None


def named(given: Given | None, parameter: str) -> Named | None:
    """Return the examples that a file, or a sequence of ids or keys, names.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: a file that cannot be read as a list of examples, or values of another kind.
    """
    if given is None:
        return None
    if isinstance(given, str | Path):
        return _read(Path(given), parameter)
    return _of_values(given, parameter)


def _of_values(given: Iterable[Any], parameter: str) -> Named:
    values = [value.item() if isinstance(value, np.generic) else value for value in given]
    kinds = {type(value) for value in values}
    if kinds - {int} and kinds - {str}:
        raise InvalidInputError(
            f"{parameter} holds {', '.join(sorted(kind.__name__ for kind in kinds))}, not ids or keys",
            hint="give whole numbers or text; of a mask, numpy.flatnonzero(mask)",
            parameter=parameter,
        )
    return Named(parameter, [str(value) for value in values], "key" if str in kinds else "train_id")


def _read(path: Path, parameter: str) -> Named:
    with contextlib.suppress(RuntimeError):  # an unknown user, whose file does not exist either
        path = path.expanduser()
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", hint=FORMATS, parameter=parameter)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InvalidInputError(f"{path} has {size:,} bytes, too many for a list", hint=FORMATS)
    try:
        return READERS.get(path.suffix.lower(), _of_text)(path)
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InvalidInputError(
            f"{path} cannot be read as a list of examples: {said[:200]}", hint=FORMATS, parameter=parameter
        ) from error


def _of_text(path: Path) -> Named:
    """Read a name a line, with or without a first line that says of which kind they are."""
    with path.open(encoding="utf-8-sig") as file:
        lines = [line.rstrip("\r\n") for line in file]
    lines = [line for line in lines if line.strip()]
    by = lines[0].strip() if lines else ""
    if by in {*ID_COLUMNS, *KEY_COLUMNS}:
        return _of_columns(str(path), {by: lines[1:]})
    return Named(str(path), _trimmed(lines), "")


def _trimmed(lines: Sequence[str]) -> Sequence[str]:
    """Return numbers without the spaces around them; keys may end in spaces."""
    numbers = [line.strip() for line in lines]
    return numbers if all(map(ROW.fullmatch, numbers)) else lines


def _of_csv(path: Path) -> Named:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
    header = [name.strip() for name in rows[0]] if rows else []
    if any(len(row) != len(header) for row in rows):
        raise ValueError("its lines do not have the same number of cells")
    return _of_columns(str(path), {name: [row[at] for row in rows[1:]] for at, name in enumerate(header)})


def _of_parquet(path: Path) -> Named:
    import pyarrow.parquet as pq  # noqa: PLC0415 - other files do not need it

    wanted = {*ID_COLUMNS, *KEY_COLUMNS, ACTION}
    held = [name for name in pq.read_schema(path).names if name in wanted]
    return _of_columns(str(path), pq.read_table(path, columns=held).to_pydict())


def _of_json(path: Path) -> Named:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".ndjson":
        document: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        document = json.loads(text)
    rows = document.get("rows") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise ValueError("it is neither a list nor an object with rows")  # noqa: TRY004 - of the file
    if rows and all(isinstance(row, dict) for row in rows):
        columns = {name: [row.get(name) for row in rows] for row in rows[:1] for name in row}
        return _of_columns(str(path), columns)
    return _of_values(rows, str(path))


READERS = {
    ".json": _of_json, ".ndjson": _of_json, ".csv": _of_csv, ".tsv": _of_csv, ".parquet": _of_parquet,
    ".pq": _of_parquet,
}  # fmt: skip


def _of_columns(source: str, columns: Mapping[str, Sequence[Any]]) -> Named:
    """Return what a table names: by key, unless it has none for some."""
    actions = {str(value) for value in columns.get(ACTION, ())}
    action = actions.pop() if len(actions) == 1 and actions <= set(ACTIONS.values()) else ""
    keys = next((columns[name] for name in KEY_COLUMNS if name in columns), None)
    if keys is not None and not any(key is None or key == "" for key in keys):
        return Named(source, [str(key) for key in keys], "key", action)
    ids = next((columns[name] for name in ID_COLUMNS if name in columns), None)
    if ids is None:
        held = ", ".join(map(str, list(columns)[:5])) or "nothing"
        raise ValueError(f"it has no column train_id or key but {held}")
    return Named(source, [str(value).strip() for value in ids], "train_id", action)


def chosen(answers: Answers, drop: str | None, keep: str | None, interval: IntervalSpec) -> pa.Table:
    """Return the training examples to drop or to keep: those for which a condition in SQL is true.

    Raises:
        InvalidInputError: not exactly one condition, or one that `examples_meeting` refuses.
    """
    condition, action = (keep, "keep") if drop is None else (drop, "drop")
    if condition is None or (drop is not None and keep is not None):
        raise InvalidInputError(
            f"{'no' if condition is None else 'more than one'} condition says which ids to export",
            hint="give drop='memorization > .5 and q < .1', or keep=...",
            parameter=("drop", "keep"),
        )
    rows = examples_meeting(answers, condition, interval)
    return rows.append_column(ACTION, pa.array([action] * rows.num_rows))


def write_ids(path: Path, answer: Answer) -> None:
    """Write examples: as text, a key a line, else with all that their rows say.

    Raises:
        InvalidInputError: a key that takes more than a line, or is blank, in text.
        StorageError: the folder is missing, full or not writable.
    """
    if path.suffix.lower() not in {"", ".txt"}:
        answer.write(path)
        return
    keys = answer.table.column("key").to_pylist()
    odd = next((key for key in keys if key.splitlines() != [key] or not key.strip()), None)
    if odd is not None:
        raise InvalidInputError(
            f"the key {odd!r} is not one line of text", hint="write .csv, .parquet or .json"
        )
    with writing(path) as temporary:
        temporary.write_text("key\n" + "".join(f"{key}\n" for key in keys), encoding="utf-8", newline="\n")
