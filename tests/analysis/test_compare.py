"""Two stores of one data set, against the scores of each."""

from __future__ import annotations

from statistics import fmean

import pytest
from support import oracle
from support.cases import every
from support.stores import N_MODELS, bits_of, coin_recipe, dicts, small_database, small_dataset
from support.storing import batch

import memdb
from memdb.errors import InvalidInputError, MismatchError, NotEnoughModelsError, NotFoundError


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Another store of the same data: half of the training set in a subset, other models."""
    url = tmp_path_factory.mktemp("half") / "store.zarr"
    with small_database(url, subset_fraction=0.5) as made:
        made.train(seeds=range(500, 540))
    return url


def ranks(values):
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]


@pytest.mark.parametrize("test_id", [None, 4])
@pytest.mark.parametrize("kind", every(2, ["selected", "fixed", "anytime", "simultaneous"]))
def test_a_comparison_is_that_of_the_two_stores_scores(db, half, test_id, kind):
    with memdb.open(str(half)) as other:
        rows = dicts(db.compare(other, test_id=test_id, k=5, threshold=0.3, interval=kind))
        scores, counted = [], []
        for store in (db, other):
            masks, train, test = bits_of(store.snapshot)
            right = train if test_id is None else test
            counted.append(
                [oracle.counts(masks, right, i, i if test_id is None else test_id) for i in range(23)]
            )
            scores.append([oracle.score(*c) for c in counted[-1]])
    a, b = scores
    name = "memorization" if test_id is None else "influence"
    order = sorted(range(23), key=lambda i: (-round(abs(a[i] - b[i]), 12), i))[:5]
    assert [row["train_id"] for row in rows] == order
    high = [{i for i in range(23) if s[i] >= 0.3} for s in scores]
    tops = [set(sorted(range(23), key=lambda i, s=s: (-s[i], i))[:5]) for s in scores]
    for row in rows:
        i = row["train_id"]
        assert (row[f"{name}_a"], row[f"{name}_b"]) == pytest.approx((a[i], b[i]))
        assert row["difference"] == pytest.approx(a[i] - b[i])
        ends = []
        for c, n in zip(counted, (N_MODELS, 40), strict=True):
            z = oracle.z_of(kind, n, 0.975, n_shown=5, n_ranked=23)
            ends.append(oracle.interval(*c[i], z))
        (lo_a, hi_a), (lo_b, hi_b) = ends
        assert (row["lo"], row["hi"]) == pytest.approx((lo_a - hi_b, hi_a - lo_b), abs=1e-9)
        assert row["n_compared"] == 23
        assert (row["n_above_a"], row["n_above_b"]) == tuple(map(len, high))
        union = high[0] | high[1]
        assert row["jaccard"] == (pytest.approx(len(high[0] & high[1]) / len(union)) if union else None)
        assert row["top_overlap"] == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
        assert row["spearman"] == pytest.approx(
            oracle.correlation(list(zip(ranks(a), ranks(b), strict=True)))
        )
        assert row["mean_difference"] == pytest.approx(fmean(a) - fmean(b))
        assert (row["n_models_a"], row["n_models_b"], row["n_models_shared"]) == (N_MODELS, 40, 0)
        assert (row["subset_fraction_a"], row["subset_fraction_b"]) == (0.7, 0.5)
        assert row["same_recipe"]


@pytest.mark.parametrize("outcome", ["correct", "confidence"])
@pytest.mark.parametrize("test_id", [None, 4])
def test_a_store_agrees_with_itself(db, outcome, test_id):
    row = dicts(db.compare(db, test_id=test_id, outcome=outcome, threshold=-0.9))[0]
    assert row["difference"] == row["mean_difference"] == 0
    assert (row["jaccard"], row["top_overlap"], row["n_models_shared"]) == (1, 1, N_MODELS)
    assert row["spearman"] == pytest.approx(1)
    assert row["lo"] < 0 < row["hi"]


def test_turned_round_a_comparison_changes_its_sign(db, half):
    with memdb.open(str(half)) as other:
        there, back = dicts(db.compare(other, k=23)), dicts(other.compare(db, k=23))
    assert [row["train_id"] for row in there] == [row["train_id"] for row in back]
    for a, b in zip(there, back, strict=True):
        assert (a["difference"], a["lo"], a["hi"]) == pytest.approx((-b["difference"], -b["hi"], -b["lo"]))
        assert (a["jaccard"], a["spearman"]) == pytest.approx((b["jaccard"], b["spearman"]))


def test_stores_of_other_data_are_refused_with_both_fingerprints(db, tmp_path):
    other = memdb.init(str(tmp_path / "other.zarr"), small_dataset(shift=1), coin_recipe, seed=7)
    with other, pytest.raises(MismatchError, match="the test sets differ") as caught:
        db.compare(other)
    for store in (db, other):
        assert store.store.manifest.set_named("test").fingerprint in str(caught.value)


def test_comparisons_that_cannot_be_are_refused(db, empty, tmp_path):
    for pair in ((db, empty), (empty, db)):
        with pytest.raises(NotEnoughModelsError, match=r"empty\.zarr has no models yet"):
            pair[0].compare(pair[1])
    for options, message in (
        ({"k": 0}, "k 0"),
        ({"test_id": 11}, "test_id 11"),
        ({"threshold": 4}, "threshold 4"),
        ({"interval": "wald"}, "unknown interval"),
        ({"level": 7}, "the level 7"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            db.compare(db, **options)
    with small_database(tmp_path / "bits.zarr", outcomes=["correct"]) as bits_only:
        bits_only.store.commit(*batch(bits_only.store, range(8)))
        bits_only.refresh()
        with pytest.raises(NotFoundError, match=r"bits\.zarr keeps no confidences"):
            db.compare(bits_only, outcome="confidence")
        models, masks, outcomes = batch(empty.store, range(3))
        masks[:] = True
        values = {
            name.replace("correct", "logit_confidence"): v.astype(float) for name, v in outcomes.items()
        }
        empty.store.commit(models, masks, outcomes | values)
        empty.refresh()
        with pytest.raises(NotEnoughModelsError, match="no training example has a score in"):
            db.compare(empty)
