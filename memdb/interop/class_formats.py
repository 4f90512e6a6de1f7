"""Published scores by class: all pairs within each, as matrices beside lists of their examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.interop.arrays import ArrayFile
from memdb.interop.described import labels_in, names_in
from memdb.interop.matrices import missing, scores_in
from memdb.interop.run_formats import SETS
from memdb.interop.score_formats import NO_SCORES, NOBODY, ScoreFile, ids_in
from memdb.store.score_tables import Scores

_MATRIX = re.compile(r"infl_matrix_class(\d{1,9})")


def pairs_by_class(path: Path, arrays: Mapping[str, ArrayFile]) -> ScoreFile | None:
    """Read ``infl_matrix_classK``, ``tr_classidx_K`` and ``tt_classidx_K`` of each class K, and ``tr_mem``.

    All pairs within the classes, as Feldman and Zhang published them for CIFAR-100 and ImageNet. Without
    ``tr_labels`` and ``tt_labels``, which ImageNet has in a file of its own, labels are those of the lists.
    """
    classes = [found[1] for found in map(_MATRIX.fullmatch, arrays) if found]
    if not classes:
        return None
    lists = {
        name: {ending: _class_list(path, arrays, f"{side}_classidx_{ending}", ending) for ending in classes}
        for name, side in zip(SETS, ("tr", "tt"), strict=True)
    }
    labels, class_names, in_words = labels_in(arrays, dict.fromkeys(SETS))
    for name, parts in lists.items():
        if name not in labels:
            labels[name] = _labels_of_lists(path, name, parts)
        for ending, ids in parts.items():
            _require_members(path, name, ids, labels[name], ending)
    sizes = {name: len(labels[name]) for name in lists}
    train, test, influence, turned = _pairs(arrays, *lists.values())
    memorization = NO_SCORES
    if "tr_mem" in arrays:
        memorization = scores_in(arrays["tr_mem"], (sizes[layout.TRAIN],)).astype(np.float64)
    known = ~np.isnan(influence)
    notes = (*["Matrices are [test, train]."][:turned], *missing(len(known) - int(known.sum()), str(path)))
    return ScoreFile(
        str(path), "same_class" if known.all() else "listed",
        Scores(memorization, train[known], test[known], influence[known]),
        sizes, replace(names_in(arrays, sizes), labels=labels, class_names=class_names, in_words=in_words),
        None if len(memorization) else NOBODY, notes=notes,
    )  # fmt: skip


def _require_members(
    path: Path, name: str, ids: NDArray[np.int32], labels: NDArray[Any], ending: str
) -> None:
    """Refuse a list of a class with an example that is not there, or of another class."""
    wrong = ids[ids >= len(labels)]
    odd = wrong if len(wrong) else ids[labels[ids] != int(ending)]
    if len(odd):
        label = "none" if len(wrong) else labels[odd[0]]
        raise InvalidInputError(
            f"{path} lists {name} example {odd[0]} in class {ending}, and its label is {label}",
            hint="the lists of a class hold examples of that class alone",
        )


def _pairs(
    arrays: Mapping[str, ArrayFile],
    rows: Mapping[str, NDArray[np.int32]],
    columns: Mapping[str, NDArray[np.int32]],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.floating], bool]:
    """Return the training and test ids of all pairs, their influence, and whether matrices are [test, train].

    ``rows`` and ``columns`` are the training and the test examples of each class.
    """
    files = {ending: arrays[f"infl_matrix_class{ending}"] for ending in rows}
    shapes = {ending: (len(rows[ending]), len(columns[ending])) for ending in rows}
    # of all classes at once: the matrix of a class alone may be square
    turned = any(files[ending].shape != shapes[ending] for ending in rows) and all(
        files[ending].shape == shapes[ending][::-1] for ending in rows
    )
    pairs = []
    for ending, (n_train, n_test) in shapes.items():
        matrix = scores_in(files[ending], (n_test, n_train) if turned else (n_train, n_test))
        matrix = matrix.T if turned else matrix
        pairs.append((np.repeat(rows[ending], n_test), np.tile(columns[ending], n_train), matrix.ravel()))
    train, test, influence = (np.concatenate(values) for values in zip(*pairs, strict=True))
    return train, test, influence, turned


def _class_list(path: Path, arrays: Mapping[str, ArrayFile], name: str, ending: str) -> NDArray[np.int32]:
    if name not in arrays:
        raise InvalidInputError(
            f"{path} has infl_matrix_class{ending} and no {name}",
            hint="expected tr_classidx_K, tt_classidx_K and infl_matrix_classK of each class K; name several "
            "files if they are in several",
        )
    return ids_in(arrays[name], (None,))


def _labels_of_lists(path: Path, name: str, lists: Mapping[str, NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return the labels that the lists of all classes make; they must have each example once."""
    ids = np.concatenate(list(lists.values()))
    if not np.array_equal(np.sort(ids), np.arange(len(ids))):
        raise InvalidInputError(
            f"{path} has no labels of the {name} set, and its lists do not have each example once",
            hint="name the file with the labels beside it, as in `memdb import matrix.npz index.npz`",
        )
    labels = np.empty(len(ids), dtype=np.int32)
    for ending, members in lists.items():
        labels[members] = int(ending)
    return labels
