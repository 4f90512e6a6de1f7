"""A user's own scores of all pairs, such as TRAK's, from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, MemdbError, NotFoundError
from memdb.interop.arrays import open_arrays
from memdb.interop.foreign import foreign
from memdb.wording import count

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")
PAIR = ("train_id", "test_id")
SHAPE_HINT = "give scores [train, test], one row for each training example of the store"


def read_scores(path: Path, shape: tuple[int, int]) -> NDArray[np.floating[Any]]:
    """Read scores of all pairs, [train, test]; those that a list of pairs lacks rank below all others.

    An .npy file, or the only array of an .npz file, is a matrix. A .csv or .parquet file either has the
    columns ``train_id``, ``test_id`` and one more, or a column for each test example and a row for each
    training example.

    Raises:
        NotFoundError: nothing is there.
        InvalidInputError: another format, another shape, no numbers, or scores that are all equal.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise NotFoundError(f"no file {path}", hint="name a file of scores", parameter="screen_by")
    if suffix not in SUFFIXES:
        raise foreign(path) or InvalidInputError(
            f"{path} has a suffix that holds no scores",
            hint=f"use one of {', '.join(SUFFIXES)}",
            parameter="screen_by",
        )
    scores = _of_arrays(path, shape) if suffix in {".npy", ".npz"} else _of_table(path, shape)
    _require_order(path, scores)
    return scores


def _of_arrays(path: Path, shape: tuple[int, int]) -> NDArray[np.floating[Any]]:
    arrays = open_arrays(path)
    if len(arrays) != 1:
        raise InvalidInputError(
            f"{path} has {len(arrays)} arrays",
            hint="save the scores alone: numpy.save",
            parameter="screen_by",
        )
    (array,) = arrays.values()
    if array.shape != shape:
        found, wanted = (
            " x ".join(f"{n:,}" for n in sizes) or "one number" for sizes in (array.shape, shape)
        )
        turned = "; this one is the other way round: save its .T" if array.shape == shape[::-1] else ""
        raise InvalidInputError(
            f"{array.place} has scores of {found}, and the store's pairs are {wanted}",
            hint=f"{SHAPE_HINT}{turned}",
            parameter="screen_by",
        )
    return array.whole(shape, "fiu")


def _of_table(path: Path, shape: tuple[int, int]) -> NDArray[np.floating[Any]]:
    import pyarrow as pa  # noqa: PLC0415 - only such files need its readers
    import pyarrow.csv  # noqa: PLC0415
    import pyarrow.parquet  # noqa: PLC0415

    try:
        table = pa.csv.read_csv(path) if path.suffix.lower() == ".csv" else pa.parquet.read_table(path)
        names = table.column_names
        if set(PAIR) <= set(names):
            return _of_pairs(path, table, shape)
        if (table.num_rows, len(names)) == (shape[0] - 1, shape[1]) and path.suffix.lower() == ".csv":
            options = pa.csv.ReadOptions(autogenerate_column_names=True)  # the first line is numbers, too
            table = pa.csv.read_csv(path, read_options=options)
        if (table.num_rows, len(names)) != shape:
            raise InvalidInputError(
                f"{path} has {count(table.num_rows, 'row')} and {count(len(names), 'column')}; expected "
                f"{shape[0]:,} and "
                f"{shape[1]:,}",
                hint=f"{SHAPE_HINT}, or the columns train_id, test_id and score",
                parameter="screen_by",
            )
        columns = [column.cast(pa.float32()).to_numpy() for column in table.columns]
    except MemdbError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidInputError(
            f"{path} cannot be read: {str(error).splitlines()[0][:200]}",
            hint=SHAPE_HINT,
            parameter="screen_by",
        ) from error
    return np.stack(columns, axis=1)


def _of_pairs(path: Path, table: Any, shape: tuple[int, int]) -> NDArray[np.float32]:
    import pyarrow as pa  # noqa: PLC0415

    rest = [name for name in table.column_names if name not in PAIR]
    name = "score" if "score" in rest else rest[0] if len(rest) == 1 else None
    if name is None:
        raise InvalidInputError(
            f"{path} has {len(rest)} columns besides train_id and test_id",
            hint="call the one of the scores score",
            parameter="screen_by",
        )
    ids = [table.column(column).cast(pa.int64()).to_numpy() for column in PAIR]
    for column, values, n_examples in zip(PAIR, ids, shape, strict=True):
        wrong = (values < 0) | (values >= n_examples)
        if wrong.any():
            raise InvalidInputError(
                f"{path} has {column} {values[wrong][0]}, and ids go from 0 to {n_examples - 1:,}",
                hint="give ids as `memdb sql` has them, which count from 0",
                parameter="screen_by",
            )
    given = table.column(name).cast(pa.float32()).to_numpy()
    least = float(np.min(given, initial=np.inf, where=np.isfinite(given)))  # others are refused below
    least = least if np.isfinite(least) else 0.0
    scores = np.full(shape, least, dtype=np.float32)
    scores[ids[0], ids[1]] = given
    return scores


def _require_order(path: Path, scores: NDArray[np.floating[Any]]) -> None:
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise InvalidInputError(
            f"{path} has {scores[row, column]} for training example {row} and test example {column}",
            hint="give finite scores",
            parameter="screen_by",
        )
    if not scores.size or scores.min() == scores.max():
        raise InvalidInputError(
            f"the scores of {path} are all equal: they rank nothing",
            hint="give scores that differ between pairs",
            parameter="screen_by",
        )
