"""Published scores: memorization and influence, under the names that people give them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.format.score_table import COVERAGES
from memdb.interop.arrays import ArrayFile, is_of
from memdb.interop.run_formats import SETS, Names, numbers, within
from memdb.store.score_tables import Scores

TRAIN_IDS = ("train_id", "tr_idx", "train_idx", "train_index", "tr_id", "train")
TEST_IDS = ("test_id", "tt_idx", "test_idx", "test_index", "tt_id", "test")
IDS = (*TRAIN_IDS, "id", "idx", "index", "example", "example_id", "")  # "": as pandas writes its index
MEMORIZATION = (
    "memorization", "mem", "tr_mem", "memorization_score", "memorization_scores", "mem_score", "mem_scores",
    "mem_est", "memorization_estimate", "memorization_estimates",
)  # fmt: skip
INFLUENCE = (
    "influence", "infl", "influence_score", "influence_scores", "infl_est", "influences", "infl_matrix",
    "influence_matrix", "influence_estimates",
)  # fmt: skip
LABELS = {
    layout.TRAIN: ("tr_labels", "train_labels", "labels", "label"),
    layout.TEST: ("tt_labels", "test_labels"),
}
KEYS = {
    layout.TRAIN: ("tr_filenames", "train_filenames", "filenames", "filename", "train_keys", "key"),
    layout.TEST: ("tt_filenames", "test_filenames", "test_keys"),
}
_MATRIX = re.compile(r"infl_matrix_class(\d{1,9})")
TEXT, INTEGERS = "US", "iu"
MOST_PAIRS = 100_000_000  # of a matrix, which is in memory several times while it is ordered


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
        notes: what the user should know.
    """

    place: str
    coverage: str
    scores: Scores
    sizes: Mapping[str, int] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    memorized: NDArray[np.integer] | None = None
    notes: tuple[str, ...] = ()


ScoreFormat: TypeAlias = Callable[[Path, Mapping[str, ArrayFile]], ScoreFile | None]
"""A format of scores: from a path and its arrays by name to a `ScoreFile`, or None as for `RunFormat`."""
NOBODY: NDArray[np.int32] = np.empty(0, dtype=np.int32)
NO_SCORES: NDArray[np.float64] = np.empty(0)


def named(arrays: Mapping[str, ArrayFile], names: Sequence[str], kinds: str = "") -> ArrayFile | None:
    """Return the first array that has one of these names, in small or capital letters.

    One that is not of these ``kinds``, if any are given, is left alone.
    """
    spelled = {name.strip().lower(): name for name in arrays}
    found = next((spelled[name] for name in names if name in spelled), None)
    if found is None:
        return None
    return None if kinds and not is_of(arrays, found, kinds) else arrays[found]


def listed_pairs(path: Path, arrays: Mapping[str, ArrayFile]) -> ScoreFile | None:
    """Read ``tr_idx``, ``tt_idx``, ``infl`` and ``mem``, or ``train_id``, ``test_id``, ``influence``.

    One of each a pair: so Feldman and Zhang published the strongest, and so tables list them.
    """
    train_ids, test_ids = named(arrays, TRAIN_IDS), named(arrays, TEST_IDS)
    strength = named(arrays, INFLUENCE)
    if train_ids is None or test_ids is None or strength is None or len(strength.shape) != 1:
        return None
    n_pairs = train_ids.shape[0]
    if n_pairs == 0:
        raise InvalidInputError(f"{path} holds no pairs")
    train, test = (_ids(file, (n_pairs,)) for file in (train_ids, test_ids))
    influence = _scores(strength, (n_pairs,))
    given = named(arrays, MEMORIZATION)
    memorized, first, place = np.unique(train, return_index=True, return_inverse=True)
    memorization = np.repeat(np.nan, len(memorized))
    if given is not None:
        mem = _scores(given, (n_pairs,))
        memorization = mem[first].astype(np.float64)
        differs = np.flatnonzero(
            (memorization[place] != mem) & ~(np.isnan(mem) & np.isnan(memorization[place]))
        )
        if len(differs):
            row = int(differs[0])
            raise InvalidInputError(
                f"{path} gives training example {train[row]} the memorization {mem[row]:g} and "
                f"{memorization[place[row]]:g}",
                hint="it must have one: get the file again",
            )
    known = ~np.isnan(influence)
    scores = Scores(memorization, train[known], test[known], influence[known])
    return ScoreFile(str(path), "listed", scores, memorized=memorized, notes=_missing(influence))


def _missing(scores: NDArray[np.floating]) -> tuple[str, ...]:
    n = int(np.isnan(scores).sum())
    return (f"{n:,} scores are NaN, and so missing.",) if n else ()


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
    labels, sizes = _labels(arrays), {}
    for name, parts in lists.items():
        if name not in labels:
            labels[name] = _labels_of_lists(path, name, parts)
        sizes[name] = len(labels[name])
        for ending, ids in parts.items():
            wrong = ids[ids >= sizes[name]]
            odd = wrong if len(wrong) else ids[labels[name][ids] != int(ending)]
            if len(odd):
                label = "none" if len(wrong) else labels[name][odd[0]]
                raise InvalidInputError(
                    f"{path} lists {name} example {odd[0]} in class {ending}, and its label is {label}",
                    hint="the lists of a class hold examples of that class alone",
                )
    pairs = []
    for ending in classes:
        rows, columns = lists[layout.TRAIN][ending], lists[layout.TEST][ending]
        matrix = _scores(arrays[f"infl_matrix_class{ending}"], (len(rows), len(columns)))
        pairs.append((np.repeat(rows, len(columns)), np.tile(columns, len(rows)), matrix.ravel()))
    train, test, influence = (np.concatenate(values) for values in zip(*pairs, strict=True))
    memorization = NO_SCORES
    if "tr_mem" in arrays:
        memorization = _scores(arrays["tr_mem"], (sizes[layout.TRAIN],)).astype(np.float64)
    known = ~np.isnan(influence)
    return ScoreFile(
        str(path), "same_class" if known.all() else "listed",
        Scores(memorization, train[known], test[known], influence[known]),
        sizes, Names(labels, _keys(arrays, sizes)), None if len(memorization) else NOBODY,
        _missing(influence),
    )  # fmt: skip


def _class_list(path: Path, arrays: Mapping[str, ArrayFile], name: str, ending: str) -> NDArray[np.int32]:
    if name not in arrays:
        raise InvalidInputError(
            f"{path} has infl_matrix_class{ending} and no {name}",
            hint="expected tr_classidx_K, tt_classidx_K and infl_matrix_classK of each class K; name several "
            "files if they are in several",
        )
    return _ids(arrays[name], (None,))


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


def _labels(arrays: Mapping[str, ArrayFile]) -> dict[str, NDArray[Any]]:
    found = {name: named(arrays, names, INTEGERS) for name, names in LABELS.items()}
    return {name: file.whole((None,), "iu") for name, file in found.items() if file is not None}


def _keys(arrays: Mapping[str, ArrayFile], sizes: Mapping[str, int]) -> dict[str, list[str]]:
    found = {name: named(arrays, names, TEXT) for name, names in KEYS.items() if name in sizes}
    return {name: file.texts(sizes[name]) for name, file in found.items() if file is not None}


def whole_sets(path: Path, arrays: Mapping[str, ArrayFile]) -> ScoreFile | None:
    """Read ``memorization`` [train], ``influence`` [test, train] or both, as Feldman and Zhang save them.

    Others call them ``mem``, ``tr_mem``, ``infl`` and the like. With an ``index`` or ``train_id`` beside it,
    memorization is of those examples, in any order. A single .npy file is memorization if its name says so.
    """
    spelled = {name.strip().lower(): name for name in arrays}
    if len(spelled) == 1 and path.suffix.lower() == ".npy" and "mem" in next(iter(spelled)):
        arrays = {"memorization": next(iter(arrays.values()))}
    mem, strength = named(arrays, MEMORIZATION), named(arrays, INFLUENCE)
    if (mem is None and strength is None) or (strength is not None and len(strength.shape) != 2):
        return None
    return _whole(path, arrays, mem, strength, ())


def c_scores(path: Path, arrays: Mapping[str, ArrayFile]) -> ScoreFile | None:
    """Read ``scores`` [train] with ``labels`` or ``filenames``: C-scores, kept as 1 - score.

    A C-score is how often models that were not trained on an example are right on it, over subsets of all
    sizes: 1 - score is near its memorization where models are right on what they were trained on.
    """
    scores = named(arrays, ("scores", "cscores", "c_scores", "cscore", "c_score"))
    beside = any(name in arrays for name in ("labels", "filenames"))
    if scores is None or "keep" in arrays or len(scores.shape) != 1:
        return None
    if not beside and "score" not in path.stem.lower():
        return None
    values = scores.whole((None,), "f")
    within(values, 0, 1, scores.place, "which is not a C-score", "C-scores go from 0 to 1")
    file = ArrayFile(scores.place, values.shape, values.dtype, lambda start, stop: 1 - values[start:stop])
    note = "C-scores are kept as 1 - score: near memorization where models are right on what they have seen."
    return _whole(path, arrays, file, None, (note,))


def _whole(
    path: Path,
    arrays: Mapping[str, ArrayFile],
    mem: ArrayFile | None,
    strength: ArrayFile | None,
    notes: tuple[str, ...],
) -> ScoreFile:
    """Return memorization and a matrix of influence, with what is said of the examples beside them."""
    memorization, memorized, sizes = NO_SCORES, None, {}
    labels = _labels(arrays)
    if mem is not None:
        memorization, memorized, labels = _memorization(path, mem, arrays, labels, alone=strength is None)
        notes = (*notes, *_missing(memorization))
        if memorized is None:
            sizes[layout.TRAIN] = len(memorization)
    train, test = NOBODY, NOBODY
    influence: NDArray[np.floating] = NO_SCORES
    if strength is not None:
        matrix, note = _test_by_train(strength, labels, sizes)
        notes = (*notes, *note, *_missing(matrix))
        sizes = {layout.TRAIN: matrix.shape[1], layout.TEST: matrix.shape[0]}
        test, train = (axis.astype(np.int32) for axis in np.nonzero(~np.isnan(matrix)))
        influence = matrix[test, train]
        if mem is None:
            memorized = NOBODY
    for name, values in labels.items():
        if sizes.setdefault(name, len(values)) != len(values):
            raise InvalidInputError(
                f"{path} has {len(values):,} {name} labels, and scores of {sizes[name]:,} examples",
                hint="check that they are of the same examples",
            )
    scores = Scores(memorization, train, test, influence)
    keys = {} if named(arrays, IDS, INTEGERS) is not None else _keys(arrays, sizes)
    return ScoreFile(str(path), "listed", scores, sizes, Names(labels, keys), memorized, notes)


def _memorization(
    path: Path,
    file: ArrayFile,
    arrays: Mapping[str, ArrayFile],
    labels: dict[str, NDArray[Any]],
    *,
    alone: bool,
) -> tuple[NDArray[np.float64], NDArray[np.int32] | None, dict[str, NDArray[Any]]]:
    """Return memorization, the ids that it is of (None: all, in order), and labels in their order."""
    memorization = _scores(file, (None,)).astype(np.float64)
    if not len(memorization) or np.isnan(memorization).all():
        raise InvalidInputError(f"{path} holds no scores")
    ids = named(arrays, IDS, INTEGERS) if alone else None
    if ids is None:
        return memorization, None, labels
    memorized, order = np.unique(_ids(ids, (len(memorization),)), return_index=True)
    if len(memorized) < len(memorization):
        raise InvalidInputError(f"{ids.place} names an example twice", hint="give one score each")
    if int(memorized[-1]) > len(memorized) - 1:  # some of the examples
        return memorization[order], memorized, {}
    ordered = {name: values[order] for name, values in labels.items() if len(values) == len(order)}
    return memorization[order], None, ordered


def _test_by_train(
    file: ArrayFile, labels: Mapping[str, NDArray[Any]], sizes: Mapping[str, int]
) -> tuple[NDArray[np.floating], tuple[str, ...]]:
    """Return a matrix of influence as [test, train], and what was assumed of its axes."""
    n_pairs = math.prod(file.shape)
    if n_pairs > MOST_PAIRS:
        raise InvalidInputError(
            f"{file.place} holds {n_pairs:,} pairs, and a score table at most {MOST_PAIRS:,}",
            hint="keep the strongest: tt, tr = numpy.nonzero(abs(influence) > 0.1), then numpy.savez(..., "
            "tr_idx=tr, tt_idx=tt, infl=influence[tt, tr], mem=memorization[tr])",
        )
    matrix = _scores(file, (None, None))
    known = {name: len(values) for name, values in labels.items()} | dict(sizes)
    wanted = known.get(layout.TEST), known.get(layout.TRAIN)
    fits = [
        all(n in {None, m} for n, m in zip(wanted, shape, strict=True))
        for shape in (matrix.shape, matrix.shape[::-1])
    ]
    if fits == [False, True]:
        return matrix.T, (f"{file.place} is [train, test].",)
    if not any(fits):
        raise InvalidInputError(
            f"{file.place} has shape {matrix.shape}, and there are {wanted[1] or 'other'} training examples",
            hint="give influence as [test, train]",
        )
    assumed = (
        f"{file.place} is taken as [test, train]: {matrix.shape[0]:,} test, {matrix.shape[1]:,} training."
    )
    return matrix, (assumed,) if all(fits) else ()


def _ids(file: ArrayFile, shape: tuple[int | None, ...], n_examples: int = 2**31 - 1) -> NDArray[np.int32]:
    ids = file.whole(shape, "iu")
    wrong = (ids < 0) | (ids >= n_examples)
    if wrong.any():
        raise InvalidInputError(
            f"{file.place} holds {ids[wrong][0]}, and ids go from 0 to {n_examples - 1:,}"
        )
    return ids.astype(np.int32)


def _scores(file: ArrayFile, shape: tuple[int | None, ...]) -> NDArray[np.floating]:
    """Return scores, NaN where there is none, within -1 and 1."""
    values = _rates(file.whole(shape, "f"), file.place)
    return values if values.dtype == np.float32 else values.astype(np.float64)


def _rates(values: NDArray[np.floating], place: str) -> NDArray[np.floating]:
    return within(values, -1, 1, place, "which no difference of two rates can be", "scores go from -1 to 1")


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
    _rates(numbers(influence, f"the influence of {place}"), f"the influence of {place}")
    _rates(scores.memorization, f"the memorization of {place}")
    pairs = scores.train_id.astype(np.int64) << 32 | scores.test_id
    pairs.sort()
    twice = pairs[1:][pairs[1:] == pairs[:-1]]
    if len(twice):
        raise InvalidInputError(
            f"{place} has the pair of training example {twice[0] >> 32} and test example "
            f"{twice[0] & 0xFFFFFFFF} twice"
        )


FORMATS: tuple[ScoreFormat, ...] = (listed_pairs, pairs_by_class, whole_sets, c_scores)
