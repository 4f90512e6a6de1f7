"""What a file says of the examples themselves: labels, keys, class names, under the names that people use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.interop.arrays import ArrayFile
from memdb.interop.by_name import Arrays, is_of, spelled
from memdb.interop.views import as_list
from memdb.store.examples import UNKNOWN

LARGEST = 2**31 - 1  # label
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
    in_words: frozenset[str] = frozenset()  # sets whose labels are names of classes in the file

    def labels_by(self, set_name: str, classes: Sequence[str]) -> NDArray[Any] | None:
        """Return labels as places in ``classes`` if they are names, -1 for others; None if there are none."""
        labels = self.labels.get(set_name)
        if labels is None or not classes or set_name not in self.in_words:
            return labels
        places = {name: place for place, name in enumerate(classes)}
        found: NDArray[Any] = np.array([places.get(name, -1) for name in self.class_names])[labels]
        return found


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
    labels, classes, in_words = labels_in(arrays, sizes)
    held = {name: list_of(arrays, KEYS[name], TEXT + "iu") for name in sizes if name in KEYS}
    keys = {name: _texts(arrays, *file, sizes[name]) for name, file in held.items() if file is not None}
    return Names(
        labels, {name: texts for name, texts in keys.items() if texts is not None}, classes, in_words
    )


def list_of(
    arrays: Mapping[str, ArrayFile], names: Sequence[str], kinds: str
) -> tuple[ArrayFile, ArrayFile] | None:
    """Return the array of one of these names and the list that it is; None if it is none, and not read."""
    file = named(arrays, names, kinds)
    if file is None:
        return None
    values = as_list(file)
    if len(values.shape) == 1:
        return file, values
    _leave(arrays, file)
    return None


def _texts(
    arrays: Mapping[str, ArrayFile], file: ArrayFile, values: ArrayFile, n: int | None
) -> list[str] | None:
    """Return a list of texts; None if they cannot be read as such."""
    values.require((n,), TEXT + "iu")
    try:
        return values.texts(n)
    except InvalidInputError:  # bytes in another encoding
        _leave(arrays, file)
        return None


def labels_in(
    arrays: Mapping[str, ArrayFile], sizes: Mapping[str, int | None]
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...], frozenset[str]]:
    """Return the labels of these sets, the names of the classes if the file has any, and `Names.in_words`.

    Labels may be whole numbers in floats, or names: then the classes are the names, in the order of the
    file's own list of classes or else of the alphabet. Where all labels are negative, they are unknown.
    Others, such as fractions, are not read.

    Raises:
        InvalidInputError: a label is too large.
    """
    labels: dict[str, NDArray[Any]]
    classes: tuple[str, ...]
    named_so = {name: list_of(arrays, LABELS[name], WHOLE_NUMBERS + TEXT) for name in sizes if name in LABELS}
    found = {name: pair for name, pair in named_so.items() if pair is not None}
    as_names = {values.dtype.kind in TEXT for _, values in found.values()}
    if as_names == {True}:
        read = {name: _texts(arrays, *pair, sizes[name]) for name, pair in found.items()}
        texts = {name: part for name, part in read.items() if part is not None}
        if not texts:
            return {}, (), frozenset()
        distinct, rows = np.unique([text for part in texts.values() for text in part], return_inverse=True)
        ends = np.cumsum([len(part) for part in texts.values()])[:-1]
        labels, classes = dict(zip(texts, np.split(rows, ends), strict=True)), tuple(distinct.tolist())
        ordered = _ordered(arrays, classes)
        places = np.array([ordered.index(name) for name in classes], dtype=np.int32)
        return {name: places[values] for name, values in labels.items()}, ordered, frozenset(labels)
    labels = {}
    for name, (file, given) in found.items():
        values = given.whole((sizes[name],), WHOLE_NUMBERS) if as_names == {False} else None
        if values is None or not is_whole(values):
            _leave(arrays, file)
        elif not (values < 0).all():
            if values.max() > LARGEST:  # what has no place in an integer would be another label
                raise InvalidInputError(f"{given.place} holds {values.max()}", hint="give labels from 0 on")
            labels[name] = values.astype(np.int64)
    named_classes = named(arrays, CLASS_NAMES, TEXT) if labels else None
    classes = () if named_classes is None else tuple(named_classes.texts())
    if classes == (UNKNOWN,):  # older exports have it for no labels
        labels, classes = {}, ()
    return labels, classes, frozenset()


def _ordered(arrays: Mapping[str, ArrayFile], classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of classes in the order of the file's own list, if it has one with all of them."""
    file = named(arrays, CLASS_NAMES, TEXT)
    listed = () if file is None else tuple(file.texts())
    if set(classes) <= set(listed) and len(set(listed)) == len(listed):
        return listed
    _leave(arrays, file)
    return classes


def _leave(arrays: Mapping[str, ArrayFile], file: ArrayFile | None) -> None:
    if isinstance(arrays, Arrays):
        arrays.leave(file)


def is_whole(values: NDArray[Any]) -> bool:
    """Tell whether numbers are integers, in whatever type."""
    return values.dtype.kind in "biu" or bool((np.isfinite(values) & (values == np.round(values))).all())
