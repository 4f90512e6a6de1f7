"""What a file says of the examples themselves: labels, keys, class names, under the names that people use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import layout
from memdb.interop.arrays import ArrayFile, Arrays, is_of, spelled
from memdb.interop.views import as_list
from memdb.store.examples import UNKNOWN

LABELS = {
    layout.TRAIN: (
        "train_labels",
        "tr_labels",
        "trainset_labels",
        "labels_train",
        "y_train",
        "labels",
        "label",
    ),
    layout.TEST: ("test_labels", "tt_labels", "testset_labels", "labels_test", "y_test"),
}
KEYS = {
    layout.TRAIN: ("train_keys", "tr_filenames", "train_filenames", "filenames", "filename", "key"),
    layout.TEST: ("test_keys", "tt_filenames", "test_filenames"),
}
PAIR_KEYS = {
    layout.TRAIN: ("train_key", "train_filename", "train_name", "tr_filename"),
    layout.TEST: ("test_key", "test_filename", "test_name", "tt_filename"),
}
CLASS_NAMES = ("class_names", "label_names", "classes")
TEXT, WHOLE_NUMBERS = "US", "biuf"


@dataclass(frozen=True)
class Names:
    """What a file says about the examples themselves, by set; a set that it does not describe is absent."""

    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


def named(arrays: Mapping[str, ArrayFile], names: Sequence[str], kinds: str = "") -> ArrayFile | None:
    """Return the first array that has one of these names, in small or capital letters.

    One that is not of these ``kinds``, if any are given, is left alone.
    """
    spellings = spelled(arrays)
    found = next((spellings[name] for name in names if name in spellings), None)
    if found is None:
        return None
    return None if kinds and not is_of(arrays, found, kinds) else arrays[found]


def names_in(arrays: Mapping[str, ArrayFile], sizes: Mapping[str, int]) -> Names:
    """Return the labels, keys and class names among the arrays; what is not of their kind is not read.

    Raises:
        InvalidInputError: another number of them than there are examples.
    """
    labels, classes = labels_in(arrays, sizes)
    keys = {name: named(arrays, KEYS[name], TEXT) for name in sizes if name in KEYS}
    return Names(
        labels, {name: file.texts(sizes[name]) for name, file in keys.items() if file is not None}, classes
    )


def labels_in(
    arrays: Mapping[str, ArrayFile], sizes: Mapping[str, int | None]
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """Return the labels of these sets, and the names of the classes if the file has any.

    Labels may be whole numbers in floats, or names: then the classes are the names in alphabetical order.
    Where all labels are negative, they are unknown. Others, such as fractions, are not read.
    """
    files = {name: named(arrays, LABELS[name], WHOLE_NUMBERS + TEXT) for name in sizes if name in LABELS}
    held = {name: as_list(file) for name, file in files.items() if file is not None}
    as_names = {file.dtype.kind in TEXT for file in held.values()}
    if as_names == {True}:
        texts = {name: file.texts(sizes[name]) for name, file in held.items()}
        distinct, rows = np.unique([text for part in texts.values() for text in part], return_inverse=True)
        ends = np.cumsum([len(part) for part in texts.values()])[:-1]
        return dict(zip(texts, np.split(rows.astype(np.int32), ends), strict=True)), tuple(distinct.tolist())
    labels: dict[str, NDArray[Any]] = {}
    for name, file in held.items():
        values = file.whole((sizes[name],), WHOLE_NUMBERS) if as_names == {False} else None
        if values is None or not is_whole(values):
            _leave(arrays, files[name])
        elif not (values < 0).all():
            labels[name] = values.astype(np.int64)
    named_classes = named(arrays, CLASS_NAMES, TEXT) if labels else None
    classes: tuple[str, ...] = () if named_classes is None else tuple(named_classes.texts())
    return ({}, ()) if classes == (UNKNOWN,) else (labels, classes)  # older exports have it for no labels


def _leave(arrays: Mapping[str, ArrayFile], file: ArrayFile | None) -> None:
    if isinstance(arrays, Arrays):
        arrays.leave(file)


def is_whole(values: NDArray[Any]) -> bool:
    """Tell whether numbers are integers, in whatever type."""
    return values.dtype.kind in "biu" or bool((np.isfinite(values) & (values == np.round(values))).all())
