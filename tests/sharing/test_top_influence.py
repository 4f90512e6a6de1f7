"""Lists of published copies equal those that questions give, pair by pair and to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import every
from support.stores import coin_recipe
from support.storing import model

import memdb
from memdb.sharing import tables, top_influence
from memdb.store.published_arrays import COUNTED, PAIR_ROWS

N_TEST = 9


def store_of(url, masks, labels, seed=0):
    """A store of these subsets, [models, train], with test examples that some training examples help."""
    rng = np.random.default_rng(seed)
    n_models, n_train = masks.shape
    test_labels = np.arange(N_TEST) % (labels.max() + 1)
    data = memdb.Dataset(np.arange(n_train)[:, None], labels, np.arange(N_TEST)[:, None], test_labels)
    store = memdb.init(str(url), data, coin_recipe, outcomes=["correct"], subset_fraction=0.7).store
    train = rng.random(masks.shape) < 0.6
    chance = np.linspace(0, 1, N_TEST)  # of the first all models are wrong, of the last all are right
    test = rng.random((n_models, N_TEST)) < chance
    for test_id in range(2, N_TEST - 1):
        test[:, test_id] |= masks[:, (7 * test_id) % n_train] & (rng.random(n_models) < 0.5)
    models = [model(store, n, masks[n], train[n], test[n]) for n in range(n_models)]
    store.commit(models, masks, {"train/correct": train, "test/correct": test})
    return memdb.open(str(url))


def drawn(n_models, n_train, seed=1):
    return np.random.default_rng(seed).random((n_models, n_train)) < 0.7


def never_or_always(masks):
    """The same with examples that were in no subset, and others that were in all."""
    masks[:, ::5], masks[:, 1::5] = False, True
    return masks


STORES = {
    "many pairs of a kind": (drawn(40, 900), 3),
    "few pairs of a kind": (drawn(400, 60), 2),
    "one class": (drawn(50, 200), 1),
    "examples without a score": (never_or_always(drawn(60, 90)), 2),
    "fewer scores than rows": (never_or_always(drawn(30, 20)), 2),
    "two models": (drawn(2, 50), 2),
    "a single model": (drawn(1, 30), 2),
    "fewer examples than rows": (drawn(30, 8), 2),
}


@pytest.mark.parametrize(
    "pairs_at_once", every(2, [top_influence.PAIRS_AT_ONCE, 1]), ids=["together", "one by one"]
)
@pytest.mark.parametrize(("masks", "n_classes"), every(2, STORES.values()), ids=STORES)
def test_lists_are_those_of_the_question_to_the_last_bit(
    masks, n_classes, pairs_at_once, tmp_path, monkeypatch
):
    monkeypatch.setattr(top_influence, "PAIRS_AT_ONCE", pairs_at_once)
    with store_of(tmp_path / "s.zarr", masks, np.arange(masks.shape[1]) % n_classes) as db:
        relations = db.relations()
        counts = {name: tables.counts_of(relations, name) for name in COUNTED}
        listed = min(25, masks.shape[1])
        found = list(top_influence.Lists(relations, counts, listed).of(range(N_TEST)))
        assert len(found) == N_TEST
        for test_id in (0, 2, 5, N_TEST - 1):
            ours = found[test_id]
            asked = db.top_influence(test_id=test_id, k=listed).to_arrow_table()
            column = {name: asked.column(name).to_numpy() for name in asked.column_names}
            pairs = dict(zip(PAIR_ROWS, ours.pairs, strict=True))
            for name in ("train_id", "train_label", "test_label", "n_in", "k_in"):
                np.testing.assert_array_equal(pairs[name], column[name], name)
            np.testing.assert_array_equal(pairs["n_correct"], column["k_in"] + column["k_out"])
            np.testing.assert_array_equal(pairs["own_k_in"], counts["train"][3, pairs["train_id"]])
            np.testing.assert_array_equal(
                ours.scores, np.stack([column["shrunk"], column["q_value"]], axis=1)
            )


def test_pairs_that_tie_in_all_but_their_ids_go_by_these(tmp_path):
    with store_of(tmp_path / "s.zarr", drawn(40, 300), np.zeros(300, dtype=int)) as db:
        relations = db.relations()
        counts = {name: tables.counts_of(relations, name) for name in COUNTED}
        everywhere_wrong, *_ = top_influence.Lists(relations, counts, 25).of(range(1))
        assert everywhere_wrong.pairs[0].tolist() == list(range(25))
        assert (everywhere_wrong.scores == [0, 1]).all()
