"""The inputs of examples, and the bytes that represent an example in content hashes.

The bytes are type, shape and values, so that equal examples have equal hashes on every machine. Values that
NumPy can only hold as Python objects are refused, since they could only be hashed by their address in memory.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError

FEW = 8
PADDED = {  # whose bytes are not all values
    "g": "write x.astype(float)",
    "G": "write x.astype(complex)",
    "V": "give one array of numbers, as numpy.lib.recfunctions.structured_to_unstructured(x) makes it",
}
LABELS = ("label", "labels", "target", "y")  # usual names of columns of labels


class Inputs(Protocol):
    """The inputs as a recipe sees them: an array, or any object with a length and items."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class FirstOfPairs:
    """The inputs of a sequence of (input, label), such as a PyTorch data set, read on demand."""

    def __init__(self, pairs: Any) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:
        return self.pairs[index][0]


def labels_of(pairs: Any) -> list[Any]:
    """Return the labels of a sequence of (input, label); one that is not a whole number stays as it is."""
    return [_whole(pairs[row][1]) for row in range(len(pairs))]


def _whole(label: Any) -> Any:
    try:
        number = int(label)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last one of tensors of several numbers
        return label
    return number if isinstance(label, str) or number == label else label


class Picked:
    """Some of the inputs of a sequence that is read on demand."""

    def __init__(self, inputs: Any, rows: NDArray[np.integer[Any]]) -> None:
        self.inputs, self.rows = inputs, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.inputs[int(self.rows[index])]


class PickedWithContent(Picked):
    """The same of a sequence that says which bytes stand for an example."""

    def content(self, index: int) -> bytes:
        """Return the bytes that stand for one input."""
        found: bytes = self.inputs.content(int(self.rows[index]))
        return found


def picked(inputs: Any, rows: NDArray[np.integer[Any]]) -> Any:
    """Return some of the inputs of a set, in the order of these rows."""
    if isinstance(inputs, np.ndarray):
        return inputs[rows]
    if isinstance(inputs, list | tuple):
        return [inputs[row] for row in rows.tolist()]
    return (PickedWithContent if hasattr(inputs, "content") else Picked)(inputs, rows)


def inputs_of(x: Any, name: str) -> Any:
    """Return the inputs of a set as an array, or unchanged if they are another kind of sequence.

    All inputs in memory are checked; of lazy sequences, only the first.

    Raises:
        InvalidInputError: not a sequence, or inputs that have no bytes to hash.
    """
    _require_no_table(x, name)
    given = x
    if hasattr(x, "__array__"):
        x = _as_array(x, f"the {name} set")
    is_sequence = hasattr(x, "__len__") and hasattr(x, "__getitem__")
    if not is_sequence or isinstance(x, dict | str | bytes) or getattr(x, "ndim", 1) == 0:
        raise InvalidInputError(
            f"the examples of the {name} set are of type {type(given).__name__}, not an array or a sequence",
            hint="give one array [examples, ...], or a list or sequence with one item an example",
        )
    if isinstance(x, np.ndarray) and x.ndim > 1 and x.dtype.hasobject:
        raise _mixed_refused(given, x, name)
    if isinstance(x, list | tuple) or (isinstance(x, np.ndarray) and x.dtype.hasobject):
        for row, example in enumerate(x):
            if getattr(example, "dtype", None) in {None, np.dtype(object)} and not _is_picture(example):
                content_of(example, f"example {row} of the {name} set")
    elif not isinstance(x, np.ndarray) and not hasattr(x, "content") and len(x):
        first, what = x[0], f"example 0 of the {name} set"
        if _is_pair(first) and np.ndim(first[1]) == 0:
            raise _refused(first, what)
        content_of(first, what)
    return x


def content_of(example: Any, what: str) -> bytes:
    """Return the type, shape and little-endian values of an example.

    Raises:
        InvalidInputError: ``what``, its description, is not numbers, text or dates, or is partly masked.
    """
    values = _as_array(example, what)
    if values.dtype.hasobject:
        raise _refused(example, what)
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    return f"{little.dtype.str}{little.shape}".encode() + little.tobytes()


def require_steady(x: Any, n_examples: int, name: str) -> None:
    """Check on a few examples that reading them twice gives equal bytes, as hashes require.

    Raises:
        InvalidInputError: names the first one that differs.
    """
    for row in range(min(FEW, n_examples)):
        what = f"example {row} of the {name} set"
        if content_of(x[row], what) != content_of(x[row], what):
            raise InvalidInputError(
                f"{what} is another one each time it is read",
                hint="leave random transforms to the recipe: a data set gives the examples as they are",
            )


def _as_array(example: Any, what: str) -> NDArray[Any]:
    if np.ma.is_masked(example):
        raise InvalidInputError(f"{what} is partly masked", hint="fill in what is masked: x.filled(0)")
    try:
        values = np.asarray(example)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _refused(example, what, str(error).splitlines()[0]) from error
    if values.dtype.char in PADDED:
        raise InvalidInputError(f"{what} is of dtype {values.dtype}", hint=PADDED[values.dtype.char])
    return values


def _is_picture(example: Any) -> bool:
    """Whether an example is an image of Pillow, which is not decoded just to check it."""
    return hasattr(example, "__array_interface__") and not isinstance(example, np.ndarray)


def _is_pair(example: Any) -> bool:
    return isinstance(example, tuple) and len(example) == 2


def _refused(example: Any, what: str, reason: str = "") -> InvalidInputError:
    """Return the error for an example that has no bytes to hash."""
    shown = " ".join(repr(example).split())
    kind = f"of type {type(example).__name__}"
    message = f"{what} is {shown}, {kind}" if len(shown) <= 60 else f"{what} is {kind}"
    if _is_pair(example):
        return InvalidInputError(
            f"{what} is a pair, as PyTorch data sets have them",
            hint="write memdb.Dataset.from_pairs(train, test)",
        )
    if example is None or str(example) in {"<NA>", "NaT"}:
        hint = 'fill in what is missing, such as frame["text"].fillna("")'
    elif hasattr(example, "isoformat"):
        hint = 'give numpy.array(dates, dtype="datetime64[s]")'
    elif isinstance(example, dict):
        hint = (
            f"give one of its values an example, such as [item[{next(iter(example), 'x')!r}] for item in x]"
        )
    elif reason:
        return InvalidInputError(f"{message}, which cannot be made an array: {reason}", hint=WAYS)
    else:
        hint = WAYS
    return InvalidInputError(f"{message}, which only its address in memory identifies", hint=hint)


WAYS = (
    "give numbers, text, dates as numpy.datetime64 or lists of numbers, one an example; or an object with "
    "len(), [i] and content(i), the bytes that stand for example i"
)


def _mixed_refused(given: Any, x: NDArray[Any], name: str) -> InvalidInputError:
    """Return the error for a table whose columns have different kinds."""
    if not hasattr(given, "columns") or not hasattr(given, "dtypes"):
        return InvalidInputError(
            f"the {name} set is an array {x.shape} of Python objects",
            hint="give numbers, such as x.astype(float), or one text an example",
        )
    columns = zip(given.columns, given.dtypes, strict=True)
    odd = [f"{c} ({kind})" for c, kind in columns if np.asarray(given[c]).dtype.kind not in "iuf"]
    return InvalidInputError(
        f"the {name} set is a DataFrame with columns that are no numbers: {', '.join(odd[:5])}",
        hint="encode them as numbers, training and test rows together, such as pandas.get_dummies(frame, "
        "dtype=float); or give one column, such as frame['text']",
    )


def _require_no_table(x: Any, name: str) -> None:
    """Refuse a sparse matrix, and a Hugging Face data set, whose columns must be selected."""
    if hasattr(x, "toarray"):
        raise InvalidInputError(f"the {name} set is a sparse {type(x).__name__}", hint="write x.toarray()")
    if not (hasattr(x, "column_names") and hasattr(x, "features")):
        return
    columns = [str(column) for column in x.column_names or ()]
    label = next((column for column in LABELS if column in columns), "label")
    text = next((column for column in columns if column != label), "text")
    parts = ", ".join(f'{part}["{column}"]' for part in ("train", "test") for column in (text, label))
    raise InvalidInputError(
        f"the {name} set is a table with the columns {', '.join(columns) or 'of a Hugging Face data set'}",
        hint=f"write memdb.Dataset({parts})",
    )
