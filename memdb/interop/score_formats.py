"""Published scores: memorization and influence, under the names that people give them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.format.score_table import COVERAGES
from memdb.interop.arrays import ArrayFile
from memdb.interop.by_name import Arrays, is_of
from memdb.interop.described import KEYS, PAIR_KEYS, TEXT, Names, labels_in, list_of, named, names_in
from memdb.interop.matrices import missing, pairs_of, rates, scores_in
from memdb.interop.run_formats import SETS, numbers, within
from memdb.interop.views import as_list
from memdb.store.score_tables import Scores
from memdb.wording import count, is_number

TRAIN_IDS = ("train_id", "tr_idx", "train_idx", "train_index", "tr_id", "train")
TEST_IDS = ("test_id", "tt_idx", "test_idx", "test_index", "tt_id", "test")
TOLD_IDS = (*TRAIN_IDS, "id", "idx", "index", "example", "example_id")
INDEX = ("", "unnamed:_0", "__index_level_0__")  # as pandas writes its index, or reads it again
IDS = (*TOLD_IDS, *INDEX)
CLASSES = ("class", "class_name", "class_id", "label", "labels", "group", "category")
MEMORIZATION = (
    "memorization", "mem", "tr_mem", "memorization_score", "memorization_scores", "mem_score", "mem_scores",
    "mem_est", "memorization_estimate", "memorization_estimates",  # or any one name with the word in it
)  # fmt: skip
INFLUENCE = (
    "influence", "infl", "influence_score", "influence_scores", "infl_est", "influences", "infl_matrix",
    "influence_matrix", "influence_estimates",
)  # fmt: skip
NUMBERS = "fiu"
THOUSANDS = r"\d{1,3}(,\d{3})+"
WORDS = {
    "memorization": {"mem", "memorization", "memorisation"},
    "influence": {"infl", "influence", "influences"},
}
BESIDE = {  # in names of what goes with scores
    "ci", "err", "error", "high", "hi", "lo", "low", "lower", "p", "pvalue", "q", "qvalue", "rank", "se",
    "std", "stderr", "upper", "var", "variance",
}  # fmt: skip


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
        keyed: the sets whose ids are places in a list of keys, which is this; what the store or the data set
            calls by these keys is meant.
        are_turnable: whether which side of the pairs is training was assumed, so that sizes known from
            elsewhere decide.
        notes: what the user should know.
    """

    place: str
    coverage: str
    scores: Scores
    sizes: Mapping[str, int] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    memorized: NDArray[np.integer] | None = None
    keyed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    are_turnable: bool = False
    notes: tuple[str, ...] = ()


ScoreFormat: TypeAlias = Callable[[Path, Mapping[str, ArrayFile]], ScoreFile | None]
"""A format of scores: from a path and its arrays by name to a `ScoreFile`, or None as for `RunFormat`."""
NOBODY: NDArray[np.int32] = np.empty(0, dtype=np.int32)
NO_SCORES: NDArray[np.float64] = np.empty(0)


def scores_named(arrays: Mapping[str, ArrayFile], what: str, names: Sequence[str]) -> ArrayFile | None:
    """Return the array of these names or else the only one of floats with the word in its name.

    An array that says how sure scores are, such as ``mem_std``, does not count.
    """
    found = named(arrays, names)
    if found is not None:
        return found
    like = [
        name
        for name in arrays
        for words in [set(re.split(r"[^a-z]+", name.lower()))]
        if WORDS[what] & words and not BESIDE & words and is_of(arrays, name, "f")
    ]
    return arrays[like[0]] if len(like) == 1 else None


def listed_pairs(path: Path, arrays: Mapping[str, ArrayFile]) -> ScoreFile | None:
    """Read ``tr_idx``, ``tt_idx``, ``infl`` and ``mem``, or ``train_id``, ``test_id``, ``influence``.

    One of each a pair: so Feldman and Zhang published the strongest, and so tables list them. Examples may be
    named by keys, ``train_key`` and ``test_key``, in place of ids.
    """
    sides = {layout.TRAIN: named(arrays, TRAIN_IDS), layout.TEST: named(arrays, TEST_IDS)}
    strength = scores_named(arrays, "influence", INFLUENCE)
    if strength is None or len(as_list(strength).shape) != 1:
        return None
    keys = {name: named(arrays, PAIR_KEYS[name]) for name, file in sides.items() if file is None}
    if None in keys.values():
        return None
    strength = as_list(strength)
    n_pairs = strength.shape[0]
    if n_pairs == 0:
        raise InvalidInputError(f"{path} holds no pairs", hint="export or download it again")
    ids: dict[str, NDArray[Any]] = {}
    keyed: dict[str, Sequence[str]] = {}
    for name, file in {**sides, **keys}.items():
        if file is not None and (file.dtype.kind in TEXT or name in keys):
            texts = file.texts(n_pairs) if name in keys else _keys(file, n_pairs)
            distinct, ids[name] = np.unique(texts, return_inverse=True)
            keyed[name] = distinct.tolist()
        elif file is not None:
            ids[name] = ids_in(file, (n_pairs,))
    train, test = ids[layout.TRAIN].astype(np.int32), ids[layout.TEST].astype(np.int32)
    influence = scores_in(strength, (n_pairs,))
    memorization, memorized = _of_pairs(path, scores_named(arrays, "memorization", MEMORIZATION), train)
    known = ~np.isnan(influence)
    scores = Scores(memorization, train[known], test[known], influence[known])
    notes = missing(n_pairs - int(known.sum()), strength.place)
    names = Names() if keyed else _names_beside(arrays, ids)
    sizes = {name: len(values) for name, values in names.labels.items()}
    return ScoreFile(str(path), "listed", scores, sizes, names, memorized, keyed, notes=notes)


def _names_beside(arrays: Mapping[str, ArrayFile], ids: Mapping[str, NDArray[Any]]) -> Names:
    """Return the labels of all examples beside pairs of some; labels of each pair are not that."""
    files = arrays.files if isinstance(arrays, Arrays) else arrays
    labels, _, _ = labels_in(files, dict.fromkeys(SETS))
    of_examples = {name: len(v) for name, v in labels.items() if len(v) != len(ids[name])}
    if set(of_examples) != set(SETS) or any(ids[name].max() >= n for name, n in of_examples.items()):
        return Names()
    return names_in(arrays, of_examples)


def _of_pairs(
    path: Path, given: ArrayFile | None, train: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return the memorization of the training examples of pairs, NaN if not ``given``, and their ids."""
    memorized, first, place = np.unique(train, return_index=True, return_inverse=True)
    if given is None:
        return np.repeat(np.nan, len(memorized)), memorized
    mem = scores_in(as_list(given), train.shape)
    memorization = mem[first].astype(np.float64)
    differs = np.flatnonzero((memorization[place] != mem) & ~(np.isnan(mem) & np.isnan(memorization[place])))
    if len(differs):
        row = int(differs[0])
        raise InvalidInputError(
            f"{path} gives training example {train[row]} the memorization {mem[row]:g} and "
            f"{memorization[place[row]]:g}",
            hint="it must have one: get the file again",
        )
    return memorization, memorized


def whole_sets(path: Path, arrays: Mapping[str, ArrayFile]) -> ScoreFile | None:
    """Read ``memorization`` [train], ``influence`` [test, train] or both, as Feldman and Zhang save them.

    Others call them ``mem``, ``tr_mem``, ``infl`` and the like; one name with the word in it will do,
    ``cifar10_mem``. With an ``index`` or ``train_id`` beside it, memorization is of those examples, in any
    order; with ``filename``, ``key`` or ``train_key``, of those that the store or the data set calls so.
    """
    if len(arrays) == 1 and path.suffix.lower() == ".npy" and "mem" in next(iter(arrays)).lower():
        arrays = {"memorization": next(iter(arrays.values()))}
    mem = scores_named(arrays, "memorization", MEMORIZATION)
    strength = scores_named(arrays, "influence", INFLUENCE)
    if mem is None and strength is None:
        return None
    if strength is not None and len(strength.shape) == 1:
        raise InvalidInputError(
            f"{strength.place} is a list, and {path} does not name the pairs that it is of",
            hint="give each a train_id and a test_id; influences on training examples are not imported",
        )
    if strength is not None:
        strength.require((None, None), NUMBERS)
        _require_in_order(arrays, strength)
    return _whole(path, arrays, mem, strength, ())


def _require_in_order(arrays: Mapping[str, ArrayFile], matrix: ArrayFile) -> None:
    """Refuse a matrix beside which ids say that its rows or columns are other examples than they count as.

    Raises:
        InvalidInputError: they do.
    """
    for names in (TRAIN_IDS, TEST_IDS):
        found = list_of(arrays, names, "iu")
        if found is None or found[1].shape[0] not in matrix.shape:
            continue
        n = found[1].shape[0]
        if not np.array_equal(found[1].whole((n,), "iu"), np.arange(n)):
            raise InvalidInputError(
                f"{found[0].place} is not 0, 1, 2, ...: {matrix.place} is a matrix of all examples in order",
                hint="sort its rows and columns by their ids, or give pairs: train_id, test_id, influence",
            )


def c_scores(path: Path, arrays: Mapping[str, ArrayFile]) -> ScoreFile | None:
    """Read ``scores`` [train] with ``labels`` or ``filenames``: C-scores, kept as 1 - score.

    A C-score is how often models that were not trained on an example are right on it, over subsets of all
    sizes: 1 - score is near its memorization where models are right on what they were trained on.
    """
    by_name = "score" in path.stem.lower()
    called = ("scores", "cscores", "c_scores", "cscore", "c_score", *(["score"] if by_name else []))
    scores = named(arrays, called)
    beside = any(name in arrays for name in ("labels", "filenames"))
    if scores is None or "keep" in arrays or len(as_list(scores).shape) != 1 or not (beside or by_name):
        return None
    values = as_list(scores).whole((None,), "f")
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
    labels, class_names, in_words = labels_in(arrays, dict.fromkeys(SETS))
    ids, keys = None, None
    if mem is not None:
        _require_examples(arrays, mem, strength)
        if strength is None:
            ids, keys = _named_by(arrays, as_list(mem).shape[0])
        memorization, memorized, labels = _memorization(path, as_list(mem), ids, labels)
        notes = (*notes, *missing(int(np.isnan(memorization).sum()), mem.place))
        if memorized is None:
            sizes[layout.TRAIN] = len(memorization)
    scores, turnable = Scores(memorization, NOBODY, NOBODY, NO_SCORES), False
    if strength is not None:
        known = {name: len(values) for name, values in labels.items()} | sizes
        pairs = pairs_of(strength, known)
        notes, turnable = (*notes, *pairs.notes), pairs.are_assumed
        sizes = {layout.TRAIN: pairs.n_train, layout.TEST: pairs.n_test}
        scores = Scores(memorization, pairs.train_id, pairs.test_id, pairs.influence)
        memorized = NOBODY if mem is None else memorized
    for name, values in labels.items():
        if sizes.setdefault(name, len(values)) != len(values):
            raise InvalidInputError(
                f"{path} has {count(len(values), f'{name} label')}, and scores of "
                f"{count(sizes[name], 'example')}",
                hint="check that they are of the same examples",
            )
    names = Names({}, {}, ()) if ids is not None else names_in(arrays, sizes)
    if keys is not None:
        names = replace(names, keys={layout.TRAIN: keys})
    keyed: dict[str, Sequence[str]] = {}
    if strength is None and layout.TRAIN in names.keys:
        keyed, memorized = (
            {layout.TRAIN: names.keys[layout.TRAIN]},
            np.arange(len(memorization), dtype=np.int32),
        )
    names = replace(names, labels=labels, class_names=class_names if labels else (), in_words=in_words)
    return ScoreFile(str(path), "listed", scores, sizes, names, memorized, keyed, turnable, notes)


def _require_examples(arrays: Mapping[str, ArrayFile], mem: ArrayFile, strength: ArrayFile | None) -> None:
    """Refuse what is not of training examples, where neither ids nor keys name those.

    Raises:
        InvalidInputError: the rows are test examples, or classes, of which no two are the same.
    """
    files = arrays.files if isinstance(arrays, Arrays) else arrays
    if list_of(files, (*TOLD_IDS, *KEYS[layout.TRAIN], *PAIR_KEYS[layout.TRAIN]), NUMBERS + TEXT):
        return
    shape = as_list(mem).shape
    tests = list_of(files, (*TEST_IDS, *KEYS[layout.TEST], *PAIR_KEYS[layout.TEST]), "iu" + TEXT)
    if strength is None and tests is not None and tests[1].shape == shape:
        raise InvalidInputError(
            f"{tests[0].place} says that {mem.place} is of test examples, which no model was trained on",
            hint="name training examples in a column train_id or train_key",
        )
    classes = list_of(files, CLASSES, "iu" + TEXT)
    n = 0 if classes is None else len(set(classes[1].texts()))
    if n > 1 and (n,) == shape:
        raise InvalidInputError(
            f"{mem.place} has {count(n, 'row')} of as many classes: means, not scores of examples",
            hint="give a row for each example; if these are examples, number them in a column train_id",
        )


def _named_by(arrays: Mapping[str, ArrayFile], n: int) -> tuple[ArrayFile | None, Sequence[str] | None]:
    """Return the ids that n scores are of, or else keys: of pairs' columns, or text in the place of ids."""
    keys = list_of(arrays, PAIR_KEYS[layout.TRAIN], TEXT + "iu")
    if keys or list_of(arrays, KEYS[layout.TRAIN], TEXT + "iu"):  # tell more than pandas' numbers of rows
        found = list_of(arrays, TOLD_IDS, NUMBERS)
    else:
        found = list_of(arrays, IDS, NUMBERS + TEXT)
    if found is not None and found[1].dtype.kind not in TEXT:
        return found[1], None
    if found is not None:
        return None, _keys(found[1], n)
    return None, None if keys is None else keys[1].texts(n)


def _keys(file: ArrayFile, n: int) -> list[str]:
    """Return what is text in the place of ids.

    Raises:
        InvalidInputError: some of it is numbers: so a line of totals looks, or 1,000.
    """
    texts = file.texts(n)
    odd = next((text for text in texts if not is_number(text)), None)
    if odd is not None and any(is_number(text) or re.fullmatch(THOUSANDS, text) for text in texts):
        raise InvalidInputError(
            f"{file.place} holds {odd[:80]!r} among numbers",
            hint="give a whole number in each row, or call a column of names key",
        )
    return texts


def _memorization(
    path: Path, file: ArrayFile, ids: ArrayFile | None, labels: dict[str, NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.int32] | None, dict[str, NDArray[Any]]]:
    """Return memorization, the ids that it is of (None: all, in order), and labels, all by example."""
    memorization = scores_in(file, (None,)).astype(np.float64)
    if not len(memorization) or np.isnan(memorization).all():
        raise InvalidInputError(f"{path} holds no scores", hint="export or download it again")
    if ids is None:
        return memorization, None, labels
    memorized, order = np.unique(ids_in(ids, (len(memorization),)), return_index=True)
    if len(memorized) < len(memorization):
        raise InvalidInputError(f"{ids.place} names an example twice", hint="give one score each")
    if int(memorized[-1]) > len(memorized) - 1 or len(memorized) == 1:  # some of the examples
        return memorization[order], memorized, {}
    beside = labels.get(layout.TRAIN)
    if beside is not None and len(beside) == len(order):
        labels = {**labels, layout.TRAIN: beside[order]}
    return memorization[order], None, labels


def ids_in(file: ArrayFile, shape: tuple[int | None, ...], n_examples: int = 2**31 - 1) -> NDArray[np.int32]:
    """Return ids of examples.

    Raises:
        InvalidInputError: something else among them.
    """
    ids = as_list(file).whole(shape, NUMBERS)
    wrong = np.isnan(ids) | (ids < 0) | (ids >= n_examples) | (ids != np.floor(ids))
    if wrong.any():
        raise InvalidInputError(
            f"{file.place} holds {ids[wrong][0]}, and ids are whole numbers from 0 to {n_examples - 1:,}",
            hint="count examples from 0, and name each, or give keys: train_key, test_key",
        )
    return ids.astype(np.int32)


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
    rates(numbers(influence, f"the influence of {place}"), f"the influence of {place}")
    rates(scores.memorization, f"the memorization of {place}")
    if scores.are_ordered:  # as those of a matrix are, which are many
        return
    pairs = scores.train_id.astype(np.int64) << 32 | scores.test_id
    pairs.sort()
    twice = pairs[1:][pairs[1:] == pairs[:-1]]
    if len(twice):
        raise InvalidInputError(
            f"{place} has the pair of training example {twice[0] >> 32} and test example "
            f"{twice[0] & 0xFFFFFFFF} twice",
            hint="give each pair once",
        )
