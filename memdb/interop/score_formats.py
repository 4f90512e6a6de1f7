"""Scores that Feldman and Zhang published: the strongest pairs, and all pairs class by class."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.format.score_table import COVERAGES
from memdb.interop.arrays import ArrayFile, names_of
from memdb.interop.run_formats import Names, finite
from memdb.store.score_tables import Scores

PAIR_KEYS = ("tr_idx", "tt_idx", "infl", "mem")
CLASS_KEYS = ("tr_mem", "tr_labels", "tt_labels")
_MATRIX = re.compile(r"infl_matrix_class(\d{1,9})")
SLACK = 1e-6  # scores are differences of rates in float32


@dataclass(frozen=True)
class ScoreFile:
    """The scores of one file.

    Attributes:
        place: its path, for messages.
        coverage: ``same_class`` for all pairs within the classes, ``listed`` for a choice of pairs.
        scores: the values, checked by `require_scores` before they are stored.
        sizes: how many examples each set has, if the file says so.
        names: labels, keys and class names, if the file has them.
        memorized: ids of the training examples that memorization is of; None for all, in order. Ids alone
            do not say how many examples there are, and one could be 2,000,000,000.
    """

    place: str
    coverage: str
    scores: Scores
    sizes: Mapping[str, int] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    memorized: NDArray[np.integer] | None = None


ScoreFormat: TypeAlias = Callable[[Path, Mapping[str, ArrayFile]], ScoreFile | None]
"""A format of scores: from a path and its arrays by name to a `ScoreFile`, or None as for `RunFormat`."""


def listed_pairs(path: Path, arrays: Mapping[str, ArrayFile]) -> ScoreFile | None:
    """Read ``tr_idx``, ``tt_idx``, ``infl`` and ``mem``: the pairs that Feldman and Zhang published."""
    if not set(PAIR_KEYS[:3]) <= set(arrays):
        return None
    if "mem" not in arrays:
        raise InvalidInputError(
            f"{path} has {names_of(arrays)}; mem is missing", hint=f"expected {', '.join(PAIR_KEYS)}"
        )
    n_pairs = arrays["tr_idx"].shape[0]
    train, test = (_ids(arrays[name], (n_pairs,)) for name in PAIR_KEYS[:2])
    influence, mem = (_scores(arrays[name], (n_pairs,)) for name in PAIR_KEYS[2:])
    if n_pairs == 0:
        raise InvalidInputError(f"{path} holds no pairs")
    memorized, first, place = np.unique(train, return_index=True, return_inverse=True)
    memorization = mem[first].astype(np.float64)
    differs = np.flatnonzero(memorization[place] != mem)
    if len(differs):
        row = int(differs[0])
        raise InvalidInputError(
            f"{path} gives training example {train[row]} the memorization {mem[row]:g} and "
            f"{memorization[place[row]]:g}",
            hint="it must have one: get the file again",
        )
    scores = Scores(memorization, train, test, influence)
    return ScoreFile(str(path), "listed", scores, memorized=memorized)


def pairs_by_class(path: Path, arrays: Mapping[str, ArrayFile]) -> ScoreFile | None:
    """Read ``tr_mem``, and an ``infl_matrix_classK`` for each class K: all pairs within the classes."""
    if not any(_MATRIX.fullmatch(name) for name in arrays):
        return None
    missing = [name for name in CLASS_KEYS if name not in arrays]
    if missing:
        raise InvalidInputError(
            f"{path} has {names_of(arrays)}; {', '.join(missing)} missing",
            hint="expected tr_mem, tr_labels, tt_labels and, for each class K, tr_classidx_K, tt_classidx_K, "
            "infl_matrix_classK",
        )
    labels = {
        name: arrays[key].whole((None,), "iu")
        for name, key in zip((layout.TRAIN, layout.TEST), CLASS_KEYS[1:], strict=True)
    }
    sizes = {name: len(values) for name, values in labels.items()}
    memorization = _scores(arrays["tr_mem"], (sizes[layout.TRAIN],)).astype(np.float64)
    parts = []
    for name in arrays:
        match = _MATRIX.fullmatch(name)
        if match:
            parts.append(_one_class(path, arrays, int(match[1]), match[1], labels))
    train, test, influence = (np.concatenate(values) for values in zip(*parts, strict=True))
    scores = Scores(memorization, train, test, influence)
    return ScoreFile(str(path), "same_class", scores, sizes, Names(labels))


def _one_class(
    path: Path, arrays: Mapping[str, ArrayFile], label: int, ending: str, labels: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.floating]]:
    """Return the pairs of one class."""
    sides = []
    for name, key in ((layout.TRAIN, f"tr_classidx_{ending}"), (layout.TEST, f"tt_classidx_{ending}")):
        if key not in arrays:
            raise InvalidInputError(f"{path} has infl_matrix_class{ending} and no {key}")
        ids = _ids(arrays[key], (None,), len(labels[name]))
        odd = ids[labels[name][ids] != label]
        if len(odd):
            raise InvalidInputError(
                f"{key} of {path} names {name} example {odd[0]}, whose label is {labels[name][odd[0]]}",
                hint="the lists of a class hold examples of that class alone",
            )
        sides.append(ids)
    matrix = _scores(arrays[f"infl_matrix_class{ending}"], (len(sides[0]), len(sides[1])))
    return np.repeat(sides[0], len(sides[1])), np.tile(sides[1], len(sides[0])), matrix.ravel()


def memorization_alone(path: Path, arrays: Mapping[str, ArrayFile]) -> ScoreFile | None:
    """Read ``tr_mem`` without any pairs."""
    if "tr_mem" not in arrays:
        return None
    memorization = _scores(arrays["tr_mem"], (None,)).astype(np.float64)
    if len(memorization) == 0:
        raise InvalidInputError(f"{path} holds no scores")
    nothing = np.empty(0, dtype=np.int32)
    scores = Scores(memorization, nothing, nothing, np.empty(0))
    known = {layout.TRAIN: "tr_labels", layout.TEST: "tt_labels"}
    labels = {name: arrays[key].whole((None,), "iu") for name, key in known.items() if key in arrays}
    sizes = {name: len(values) for name, values in labels.items()} | {layout.TRAIN: len(memorization)}
    return ScoreFile(str(path), "listed", scores, sizes, Names(labels))


def _ids(file: ArrayFile, shape: tuple[int | None, ...], n_examples: int = 2**31 - 1) -> NDArray[np.int32]:
    ids = file.whole(shape, "iu")
    wrong = (ids < 0) | (ids >= n_examples)
    if wrong.any():
        raise InvalidInputError(
            f"{file.place} holds {ids[wrong][0]}, and ids go from 0 to {n_examples - 1:,}"
        )
    return ids.astype(np.int32)


def _scores(file: ArrayFile, shape: tuple[int | None, ...]) -> NDArray[np.floating]:
    values = finite(file.whole(shape, "f"), file.place)
    _require_differences(values, file.place)
    return values if values.dtype == np.float32 else values.astype(np.float64)


def _require_differences(values: NDArray[np.floating], place: str) -> None:
    wrong = np.abs(values) > 1 + SLACK
    if wrong.any():
        raise InvalidInputError(
            f"{place} holds {values[wrong][0]:g}, which no difference of two rates can be",
            hint="scores go from -1 to 1",
        )


def require_scores(file: ScoreFile) -> None:
    """Refuse scores that a store cannot hold, whatever format they were read from.

    Raises:
        InvalidInputError: arrays of other types or lengths, values beyond -1 and 1, a pair given twice.
    """
    scores, place = file.scores, file.place
    if file.coverage not in COVERAGES:
        raise InvalidInputError(
            f"{place} has the coverage {file.coverage!r}", hint=f"use one of {', '.join(COVERAGES)}"
        )
    influence = scores.influence
    memorized = np.arange(len(scores.memorization)) if file.memorized is None else file.memorized
    for name, values, like, kinds in (
        ("memorization", scores.memorization, memorized, "f"),
        ("ids of memorization", memorized, scores.memorization, "iu"),
        ("influence", influence, scores.train_id, "f"),
        ("train_id", scores.train_id, influence, "iu"),
        ("test_id", scores.test_id, influence, "iu"),
    ):
        if values.ndim != 1 or values.shape != like.shape or values.dtype.kind not in kinds:
            raise InvalidInputError(
                f"the {name} of {place} is {values.dtype} {values.shape}",
                hint="give one float for each id, and ids as integers",
            )
        if kinds == "iu" and values.size and not 0 <= values.min() <= values.max() < 2**31:
            raise InvalidInputError(f"the {name} of {place} goes from {values.min()} to {values.max()}")
    finite(influence, f"the influence of {place}")
    _require_differences(influence, f"the influence of {place}")
    _require_differences(scores.memorization, f"the memorization of {place}")
    pairs = scores.train_id.astype(np.int64) << 32 | scores.test_id
    pairs.sort()
    twice = pairs[1:][pairs[1:] == pairs[:-1]]
    if len(twice):
        raise InvalidInputError(
            f"{place} has the pair of training example {twice[0] >> 32} and test example "
            f"{twice[0] & 0xFFFFFFFF} twice"
        )


FORMATS: tuple[ScoreFormat, ...] = (listed_pairs, pairs_by_class, memorization_alone)
