"""What a page shows of a store, as facts and packed numbers: the same for a file, a site and a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memdb.addresses import shown
from memdb.analysis.convergence import order_of_commit, usual_looks
from memdb.errors import InvalidInputError
from memdb.format import bits, layout
from memdb.look.codes import packed, planes, q_codes, score_codes
from memdb.look.partners import GROUPS, SHOWN, Finder
from memdb.query.arrow import values_of
from memdb.query.examples import require_own
from memdb.query.intervals import IntervalSpec
from memdb.query.options import PairOptions
from memdb.query.questions import ModelAnswers, info
from memdb.query.relations import Relations
from memdb.render.sheets import ShownOf
from memdb.render.tables import CONVINCING
from memdb.sharing.orders import hardest_first, ids_of, most_memorized
from memdb.sharing.tables import counts_of
from memdb.store.published_arrays import COUNTED

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST_NAME = 200  # characters of a key or class name that the page keeps
MOST_PICTURES = 20_000  # of each set, in a file
MOST_SETTLED = 20_000  # training examples whose curve a page has
TRAIN_LISTS, PEER_LISTS = 4000, 500  # training examples that have lists, and of these, ones among each other
PAIRS = 50_000_000  # that may be counted for the lists of each set
MIN_INFLUENCE, MIN_MEMORIZATION = 0.15, 0.25  # of the pairs that are shown: Feldman and Zhang's bounds
HIGHER = (0.3, 0.6, 0.9)  # bounds of influence instead, where more pairs pass than fit into memory
MOST_PAIRS = 2000
ROWS_AT_ONCE = 512
SHOWN_FACTS = (
    "store_id", "dataset", "recipe", "recipe_version", "subset_fraction", "n_train", "n_test", "n_models",
    "train_accuracy", "out_accuracy", "test_accuracy", "mean_half_width", "created_at",
)  # fmt: skip

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Contents:
    """What a page shows of a store, besides pictures and lists.

    Attributes:
        facts: about the store, for JSON.
        orders: the examples of each set in the order of its list, int32 [examples].
        keys: of the examples of each set, cut to `LONGEST_NAME`; None where they are the row numbers.
        arrays: numbers of all examples; `schemas/layout.md` says which.
        later: what returns the arrays that only some views show, for which all bits are read.
    """

    facts: Mapping[str, Any]
    orders: Mapping[str, NDArray[np.int32]]
    keys: Mapping[str, list[str] | None]
    arrays: Mapping[str, NDArray[Any]]
    later: Mapping[str, Callable[[], NDArray[Any]]]

    def every_array(self) -> dict[str, NDArray[Any]]:
        """Return all of them."""
        return {**self.arrays, **{name: make() for name, make in self.later.items()}}

    def with_lists(self, lists: Mapping[str, Lists]) -> Contents:
        """Return them together with what says which examples have lists.

        Those of training examples are named in their order; of a test example a column says which is its own.
        """
        places = np.zeros((1, len(self.orders[layout.TEST])), dtype=np.int64)  # 0 is none
        places[0, lists[layout.TEST].owners] = 1 + np.arange(len(lists[layout.TEST].owners))
        columns = planes(np.concatenate([self.arrays["test/columns"], places]))
        facts = {**self.facts, "n_listed": {name: len(those.owners) for name, those in lists.items()}}
        listed = packed(lists[layout.TRAIN].owners)
        return replace(
            self, facts=facts, arrays={**self.arrays, "test/columns": columns, "train/listed": listed}
        )


@dataclass(frozen=True)
class Lists:
    """The lists of partners of some examples of a set: `Finder.lists` of each owner.

    Attributes:
        owners: the examples that have lists.
        found: uint32 [owners, groups, `SHOWN`, 3].
    """

    owners: NDArray[np.int32]
    found: NDArray[np.uint32]


NO_LISTS = {
    name: Lists(np.zeros(0, np.int32), np.zeros((0, len(groups), SHOWN, 3), np.uint32))
    for name, groups in GROUPS.items()
}


def contents_of(
    relations: Relations, level: float, pictures: Mapping[str, ShownOf], most_pictures: int | None = None
) -> Contents:
    """Return what a page shows of the models of ``relations``, and of the first examples of some sets.

    Raises:
        NotFoundError: the models say nothing of memorization.
    """
    require_own(relations.snapshot)
    orders, arrays = _columns(relations)
    looks = usual_looks(relations.snapshot.n_models) if relations.snapshot.n_models else []
    facts = _facts(relations, level)
    facts |= {"looks": looks, "shown": SHOWN, "groups": {name: list(of) for name, of in GROUPS.items()}}
    facts |= {"min_influence": MIN_INFLUENCE, "min_memorization": MIN_MEMORIZATION}
    facts["pictures"] = {
        name: {**those.facts, "n": len(orders[name][:most_pictures]), "has_own_order": False}
        for name, those in pictures.items()
    }
    for name, those in pictures.items():
        if those.order is not None and not np.array_equal(those.order, orders[name]):
            facts["pictures"][name]["has_own_order"] = True
            arrays[f"{name}/pictured"] = packed(those.order[:most_pictures])
    first = orders[layout.TRAIN][:MOST_SETTLED]
    later = {
        "pairs": partial(strongest_pairs, relations),
        "train/settled": partial(settled, relations, first, looks),
    }
    facts["n_settled"] = len(first)
    keys = {name: _keys(relations, name) for name in COUNTED}
    facts["keys"] = {name: those is not None for name, those in keys.items()}
    return Contents(facts, orders, keys, arrays, later)


def lists_of(
    relations: Relations,
    orders: Mapping[str, NDArray[np.int32]],
    pairs: NDArray[np.uint32],
    progress: Progress,
) -> Mapping[str, Lists]:
    """Return lists of some training examples, and of the test examples that these help.

    The training examples are those that rank first, of which half would be enough, and those of ``pairs``.
    """
    n_train, n_test = len(orders[layout.TRAIN]), len(orders[layout.TEST])
    if not (n_train and n_test and relations.snapshot.n_models):
        return NO_LISTS
    finder, done = Finder(relations), 0
    ranked, n_trains = orders[layout.TRAIN], min(TRAIN_LISTS, max(SHOWN, PAIRS // n_test))
    named = dict.fromkeys(np.concatenate([ranked[: n_trains // 2], pairs[1:, 0], ranked]).tolist())
    trains = np.array(list(named)[:n_trains], dtype=np.int32)
    n_tests = min(n_test, max(SHOWN, PAIRS // n_train))

    def all_of(name: str, owners: NDArray[np.int32], n_peers: int) -> Lists:
        nonlocal done
        partners = np.zeros((len(owners), len(GROUPS[name]), SHOWN, 3), dtype=np.uint32)
        for position, one in enumerate(finder.lists(name, owners.tolist(), n_peers)):
            partners[position] = one
            done += 1
            progress(done, len(trains) + n_tests)
        return Lists(owners, partners)

    helped = all_of(layout.TRAIN, trains, max(SHOWN, min(PEER_LISTS, PAIRS // n_train)))
    tests = _most_helped(helped, n_test)[:n_tests]
    return {layout.TRAIN: helped, layout.TEST: all_of(layout.TEST, tests, 0)}


def settled(relations: Relations, rows: NDArray[np.int32], looks: list[int]) -> NDArray[Any]:
    """Return what models counted up to each of some numbers of them, [rows, 3 * looks].

    For each look: models that had the example, those of them that are right on it, and all that are.
    """
    sums_by_look = np.zeros((len(rows), len(looks), 3), dtype=np.uint32)
    if not looks:
        return packed(sums_by_look.reshape(len(rows), -1))
    order = order_of_commit(relations.snapshot)
    starts = np.array([0, *looks[:-1]])
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        inside, right = (
            bits.unpack(words[some].view(np.uint8), len(order))[order]
            for words in (relations.mask, relations.correct(layout.TRAIN))
        )
        for column, values in enumerate((inside, inside & right, right)):
            sums = np.add.reduceat(values, starts, axis=0, dtype=np.uint32)
            sums_by_look[start : start + len(some), :, column] = sums.cumsum(axis=0).T
    return packed(sums_by_look.reshape(len(rows), -1))


def _columns(relations: Relations) -> tuple[dict[str, NDArray[np.int32]], dict[str, NDArray[Any]]]:
    """Return the order of each set's list, and the counts of its examples in that order."""
    counts = {name: counts_of(relations, name) for name in COUNTED}
    n_train = counts[layout.TRAIN].shape[1]
    rows = most_memorized(relations)
    orders = {
        layout.TRAIN: np.arange(n_train, dtype=np.int32) if rows is None else ids_of(rows),
        layout.TEST: hardest_first(relations),
    }
    scores = np.full((2, n_train), np.nan)
    if rows is not None:
        for place, name in enumerate(("shrunk", "q_value")):
            scores[place] = rows.column(name).to_numpy()
    label, n_in, n_correct, k_in = counts[layout.TRAIN][:, orders[layout.TRAIN]]
    # models that are wrong: of most examples they are few, and pack better
    wrong = [n_in - k_in, (relations.snapshot.n_models - n_in) - (n_correct - k_in)]
    codes = [score_codes(scores[0]), q_codes(scores[1], CONVINCING)]
    arrays = {
        "train/order": packed(orders[layout.TRAIN]),
        "train/columns": planes(np.stack([label, n_in, *wrong, *codes])),
        "test/columns": counts[layout.TEST],
    }
    return orders, arrays


def strongest_pairs(relations: Relations) -> NDArray[Any]:
    """Return the strongest pairs above thresholds, uint32 [1 + pairs, 5].

    The first row says how many there are above them, and which bound of influence that was, in thousandths.
    The columns of the others are train id, test id, k_in, and the shrunk influence and q-value as codes.
    """
    snapshot = relations.snapshot
    if not (snapshot.n_models and snapshot.manifest.set_named(layout.TEST).n_examples):
        return np.zeros((1, 5), dtype="<u4")
    least, pairs = _found_pairs(relations)
    if pairs is None:
        return np.array([[0, 1000, 0, 0, 0]], dtype="<u4")
    columns = {
        name: values_of(pairs.column(name))
        for name in ("train_id", "test_id", "k_in", "influence", "shrunk", "q_value")
    }
    rows = np.lexsort((columns["test_id"], columns["train_id"], -columns["influence"]))[:MOST_PAIRS]
    columns = {name: values[rows] for name, values in columns.items()}
    coded = (score_codes(columns["shrunk"]), q_codes(columns["q_value"], CONVINCING))
    ids = (columns[name] for name in ("train_id", "test_id", "k_in"))
    head = [[pairs.num_rows, round(1000 * least), 0, 0, 0]]
    return np.concatenate([head, np.stack([*ids, *coded], axis=1)]).astype("<u4")


def _found_pairs(relations: Relations) -> tuple[float, pa.Table | None]:
    """Return the pairs above a bound of influence, and that bound: by chance, few models find millions."""
    for least in (MIN_INFLUENCE, *HIGHER):
        options: PairOptions = {"min_influence": least, "min_memorization": MIN_MEMORIZATION}
        try:
            return least, ModelAnswers(relations).pairs(options)
        except InvalidInputError as error:
            if "min_influence" not in error.parameters:
                raise
    return 1.0, None


def _most_helped(helped: Lists, n_test: int) -> NDArray[np.int32]:
    """Return all test examples: in the order in which lists of training examples name them, then by id."""
    named = helped.found[:, 0, :, 0].ravel().astype(np.int64) - 1
    named, first = np.unique(named[named >= 0], return_index=True)
    rest = np.setdiff1d(np.arange(n_test), named)
    return np.concatenate([named[np.argsort(first)], rest]).astype(np.int32)


def _facts(relations: Relations, level: float) -> dict[str, Any]:
    row = info(relations, IntervalSpec("anytime", level)).to_pylist()[0]
    snapshot = relations.snapshot
    facts = {name: row[name] for name in SHOWN_FACTS}
    facts["created_at"] = str(facts["created_at"])
    facts |= {"store": shown(snapshot.url), "written_at": f"{datetime.now(UTC):%Y-%m-%d}"}
    facts |= {"level": level, "alpha": IntervalSpec("anytime", level).parameters()["alpha"]}
    facts |= {"models_sha256": snapshot.models_sha256, "snapshot": snapshot.number}
    return facts | {"class_names": [_cut(name) for name in relations.class_names]}


def _keys(relations: Relations, set_name: str) -> list[str] | None:
    keys = relations.examples[set_name].keys
    is_numbered = keys == [str(row) for row in range(len(keys))]
    return None if is_numbered else [_cut(key) for key in keys]


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}\u2026"
