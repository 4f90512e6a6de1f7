"""Read what a published copy keeps besides models: counts of every example, and its strongest pairs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from memdb.errors import DamagedError, InvalidInputError
from memdb.format import layout
from memdb.format.published import ASK_AGAIN, Derived, DerivedGroup
from memdb.store.block_counts import are_possible
from memdb.store.examples import Examples, read_examples
from memdb.store.read_arrays import GroupReader
from memdb.store.snapshot import Snapshot

COUNTED = {  # the arrays of ``stats/``, and what their rows are
    layout.TRAIN: ("label", "n_in", "n_correct", "k_in"),
    layout.TEST: ("label", "n_correct"),
}
PAIRS, SCORES = "pairs", "scores"  # the arrays of ``top_influence/``
PAIR_ROWS = (
    "train_id", "train_label", "n_in", "k_in", "own_correct", "own_k_in", "test_label", "n_correct",
)  # fmt: skip
IDS = ("train_id", "train_label", "test_label")
SCORE_COLUMNS = ("shrunk", "q_value")


def derived_of(snapshot: Snapshot) -> tuple[int, Derived] | None:
    """Return a published snapshot's number and derived arrays; None for any other snapshot."""
    record = snapshot.record
    if record is None or record.derived is None or not snapshot.is_published:
        return None
    return record.number, record.derived


def read_stats(snapshot: Snapshot, set_name: str) -> NDArray[np.int32] | None:
    """Read the counts of every example of a set, int32 [`COUNTED`, examples]; None if there are none.

    Raises:
        DamagedError: an object is missing, altered or inconsistent.
    """
    published = derived_of(snapshot)
    if published is None or set_name not in COUNTED:
        return None
    number, derived = published
    folder = f"{layout.STATS}/{number}"
    shape = len(COUNTED[set_name]), snapshot.manifest.set_named(set_name).n_examples
    if not shape[1]:
        return np.zeros(shape, dtype=np.int32)
    counts = _reader(snapshot, folder, derived.stats).read(set_name, shape, "int32")
    none = np.zeros(1, dtype=np.int32)
    of = {"n_in": none, "k_in": none, **dict(zip(COUNTED[set_name], counts, strict=True))}
    possible = are_possible(of["n_in"], of["n_correct"], of["k_in"], snapshot.n_models)
    if not possible or counts[0].min() < 0:
        raise DamagedError(
            f"{snapshot.url}/{folder}/{set_name} has counts that {snapshot.n_models:,} models cannot give",
            hint=ASK_AGAIN,
        )
    return counts


def read_pairs(snapshot: Snapshot, test_id: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Read the strongest pairs of a test example.

    They are int32 [`PAIR_ROWS`, pairs], and float64 [pairs, `SCORE_COLUMNS`].

    Raises:
        InvalidInputError: the snapshot keeps none.
        DamagedError: an object is missing, altered or inconsistent.
    """
    published = derived_of(snapshot)
    if published is None:
        raise InvalidInputError(f"{snapshot.url} keeps no lists")
    number, derived = published
    if derived.listed == 0:
        raise InvalidInputError(f"{snapshot.url} keeps no lists")
    folder, group = f"{layout.TOP_INFLUENCE}/{number}", derived.top_influence
    n_test, rows = snapshot.manifest.set_named(layout.TEST).n_examples, (test_id, test_id + 1)
    shape = n_test, len(PAIR_ROWS), derived.listed
    pairs = _reader(snapshot, folder, group).read(PAIRS, shape, "int32", rows)
    shape = n_test, derived.listed, len(SCORE_COLUMNS)
    scores = _reader(snapshot, folder, group).read(SCORES, shape, "float64", rows)
    if not _are_pairs(dict(zip(PAIR_ROWS, pairs[0], strict=True)), derived, snapshot):
        raise DamagedError(
            f"{snapshot.url}/{folder}/{PAIRS} has impossible pairs of test example {test_id}",
            hint=ASK_AGAIN,
        )
    return pairs[0], scores[0]


def _are_pairs(of: Mapping[str, NDArray[np.int32]], derived: Derived, snapshot: Snapshot) -> bool:
    """Tell whether these can be pairs of a test example, judging by their counts."""
    n_in, n_models = of["n_in"], snapshot.n_models
    ids = np.concatenate([of[name] for name in IDS])
    n_scored = ((n_in > 0) & (n_in < n_models)).sum()
    return bool(
        ids.min() >= 0
        and of["train_id"].max() < snapshot.manifest.train.n_examples
        and n_scored <= sum(times for _, times in derived.n_in)
        and are_possible(n_in, of["n_correct"], of["k_in"], n_models)
        and are_possible(n_in, of["own_correct"], of["own_k_in"], n_models)
    )


def _reader(snapshot: Snapshot, folder: str, group: DerivedGroup) -> GroupReader:
    return GroupReader(snapshot.storage, folder, group.objects, group.metadata)


def is_numbered(snapshot: Snapshot, set_name: str) -> bool:
    """Tell whether the names of a set's examples are known to be their row numbers."""
    derived = derived_of(snapshot)
    return derived is not None and set_name in derived[1].numbered


def light_examples(snapshot: Snapshot, set_name: str, counts: NDArray[np.int32]) -> Examples:
    """Return a set's examples with the labels of its counts; without names unless names are row numbers."""
    n_examples = counts.shape[1]
    names = [str(n) for n in range(n_examples)] if is_numbered(snapshot, set_name) else [""] * n_examples
    offsets = np.zeros(n_examples + 1, dtype=np.int64)
    np.cumsum(list(map(len, names)), out=offsets[1:])
    keys = np.frombuffer("".join(names).encode(), dtype=np.uint8)
    return Examples(keys, offsets, *_labels_of(snapshot, set_name, counts))


def named_examples(snapshot: Snapshot, set_name: str, counts: NDArray[np.int32]) -> Examples:
    """Return a set's examples with the labels of its counts and their names, which are read.

    Raises:
        DamagedError: an array is missing, altered or does not hold names.
    """
    return read_examples(snapshot, set_name, _labels_of(snapshot, set_name, counts))


def _labels_of(
    snapshot: Snapshot, set_name: str, counts: NDArray[np.int32]
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    derived = derived_of(snapshot)
    return counts[0].copy(), tuple(derived[1].class_names.get(set_name, ())) if derived else ()
