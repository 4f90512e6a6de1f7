"""The likelihood-ratio attack and the linear datamodeling score, against SciPy, scikit-learn and loops."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.attributions import Given
from support.stores import N_TEST, N_TRAIN, bits_of

import memdb
from memdb.analysis.attribution.lds import Bootstrap, spearman
from memdb.analysis.membership import auc, statistics_of, true_positives
from memdb.errors import InvalidInputError, NotEnoughModelsError, NotFoundError

N_MODELS = 60


@pytest.fixture(scope="module")
def confident(tmp_path_factory):
    """A store whose models are surer of what they had, and its mask, logit confidences and outcomes."""
    rng = np.random.default_rng(8)
    mask = rng.random((N_MODELS, N_TRAIN)) < 0.6
    train = rng.normal(2.0 * mask, 1.0).astype(np.float16)
    weights = rng.normal(size=(N_TEST, N_TRAIN))
    test = (mask @ weights.T + rng.normal(size=(N_MODELS, N_TEST))).astype(np.float16)
    folder = tmp_path_factory.mktemp("confident")
    np.savez(
        folder / "runs.npz",
        mask=mask,
        train_correct=train > 0,
        test_correct=test > 0,
        train_logit_confidence=train,
        test_logit_confidence=test,
    )
    memdb.import_file(folder / "runs.npz", str(folder / "s.zarr"))
    with memdb.open(str(folder / "s.zarr")) as db:
        yield db, mask, train.astype(np.float64), test.astype(np.float64), weights


@pytest.mark.parametrize("variant", ["online", "offline"])
@pytest.mark.parametrize("pooled", [False, True])
def test_the_statistic_is_that_of_each_model_against_the_others(confident, variant, pooled, stats):
    _, mask, values, _, _ = confident
    sd = None
    if pooled:
        residuals = [
            [values[w, i].var(ddof=1) * (w.sum() - 1) for i, w in enumerate(m.T)] for m in (mask, ~mask)
        ]
        sd = [
            np.sqrt(sum(r) / (m.sum(axis=0) - 1).sum()) for r, m in zip(residuals, (mask, ~mask), strict=True)
        ]
    found = statistics_of(values.T, mask.T, variant, None if sd is None else tuple(sd))
    for model in range(0, N_MODELS, 7):
        others = np.arange(N_MODELS) != model
        for example in range(N_TRAIN):
            own = values[model, example]
            arms = [values[others & m[:, example], example] for m in (mask, ~mask)]
            d_in, d_out = sd if pooled else [arm.std(ddof=1) for arm in arms]
            expected = (own - arms[1].mean()) / d_out
            if variant == "online":
                logpdf = [
                    stats.norm.logpdf(own, a.mean(), d) for a, d in zip(arms, (d_in, d_out), strict=True)
                ]
                expected = logpdf[0] - logpdf[1]
            assert found[example, model] == pytest.approx(expected, abs=1e-10)


def test_membership_says_how_the_attack_does_and_who_is_exposed(confident):
    sklearn = pytest.importorskip("sklearn.metrics")
    db, mask, values, _, _ = confident
    rows = db.membership(variant="offline", variance="example")
    table = rows.to_arrow_table().to_pylist()
    statistic = statistics_of(values.T, mask.T, "offline")
    by_example = {i: sklearn.roc_auc_score(mask[:, i], statistic[i]) for i in range(N_TRAIN)}
    assert {row["train_id"]: pytest.approx(row["auc"]) for row in table} == by_example
    assert [row["auc"] for row in table] == sorted((row["auc"] for row in table), reverse=True)
    by_model = [sklearn.roc_auc_score(mask[m], statistic[:, m]) for m in range(N_MODELS)]
    assert table[0]["attack_auc"] == pytest.approx(np.mean(by_model), abs=1e-6)
    assert (table[0]["attack_auc_least"], table[0]["n_targets"]) == (
        pytest.approx(min(by_model), abs=1e-6),
        N_MODELS,
    )
    assert table[0]["attack_auc"] > 0.8
    rates = []
    for m in range(N_MODELS):
        fpr, tpr, _ = sklearn.roc_curve(mask[m], statistic[:, m], drop_intermediate=False)
        rates.append(tpr[fpr <= 0.1].max())
    assert table[0]["tpr_at_1_in_10"] == pytest.approx(np.mean(rates))


def test_curves_count_ties_and_leave_out_what_is_not_known():
    member = np.array([True, True, False, False, True])
    assert auc(np.array([1.0, 2.0, 1.0, 0.0, np.nan]), member) == (0.5 + 1 + 1 + 1) / 4
    assert np.isnan(auc(np.zeros(3), np.ones(3, bool)))
    assert true_positives(np.array([3.0, 1.0, 2.0, 0.0, 4.0]), member, 10) == pytest.approx(2 / 3)
    few = statistics_of(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[True, True, False, False]]), "online")
    assert np.isnan(few).all()


def test_what_cannot_be_attacked_is_refused(confident, database, tmp_path):
    db, *_ = confident
    with pytest.raises(InvalidInputError, match="unknown variant 'inline'"):
        db.membership(variant="inline")
    np.savez(tmp_path / "r.npz", mask=np.eye(9, 23, dtype=bool), train_correct=np.ones((9, 23), bool))
    memdb.import_file(tmp_path / "r.npz", str(tmp_path / "s.zarr"))
    with (
        memdb.open(str(tmp_path / "s.zarr")) as other,
        pytest.raises(NotFoundError, match="no logit confidences"),
    ):
        other.membership()


@pytest.mark.parametrize("outcome", [None, "correct"])
def test_lds_is_spearman_of_summed_scores_and_outcomes_over_held_out_models(confident, outcome, stats):
    db, mask, _, test, weights = confident
    ids = [model.model_id for _, model in db.snapshot.models][20:]
    rows = db.lds(Given(weights), outcome=outcome, model_ids=ids).to_arrow_table().to_pylist()
    actual = test if outcome is None else bits_of(db.snapshot)[2]
    varies = [z for z in range(N_TEST) if len(set(actual[20:, z].tolist())) > 1]
    expected = {z: stats.spearmanr(mask[20:] @ weights[z], actual[20:, z]).statistic for z in varies}
    assert {row["test_id"]: row["lds"] for row in rows if row["lds"] is not None} == pytest.approx(expected)
    assert rows[0]["mean_lds"] == pytest.approx(np.mean(list(expected.values())))
    assert rows[0]["mean_lo"] < rows[0]["mean_lds"] < rows[0]["mean_hi"]
    assert (rows[0]["n_held_out"], rows[0]["n_scored"], rows[0]["outcome"]) == (
        40,
        len(varies),
        outcome or "logit_confidence",
    )
    assert all(-1 <= row["lo"] <= row["hi"] <= 1 for row in rows if row["lds"] is not None)


def test_lds_grades_by_what_all_models_of_a_copy_have(confident, tmp_path):
    db, *_, weights = confident
    memdb.pull(db.url, str(tmp_path / "bits.zarr"), only="bits")
    scores = Given(weights)
    with memdb.open(str(tmp_path / "bits.zarr")) as copy:
        rows = copy.lds(scores).to_arrow_table()
        assert set(rows["outcome"].to_pylist()) == {"correct"}
        assert rows.equals(db.lds(scores, outcome="correct").to_arrow_table())
        with pytest.raises(NotFoundError, match="have no test/logit_confidence"):
            copy.lds(scores, outcome="logit_confidence")
        made = copy.export(tmp_path / "runs.npz", "models")
        assert "train_logit_confidence" not in made.arrays


def test_equal_scores_of_all_examples_predict_nothing_however_they_add_up(tmp_path):
    rng = np.random.default_rng(1)
    n_train, values = 9000, np.array([[0.1], [1 / 3], [1e308], [0.0]])
    mask = np.stack([rng.permutation(n_train) < n_train * 0.7 for _ in range(40)])
    outcomes = {"train_correct": mask, "test_correct": rng.random((40, len(values))) < 0.5}
    np.savez(tmp_path / "runs.npz", mask=mask, **outcomes)
    memdb.import_file(tmp_path / "runs.npz", str(tmp_path / "s.zarr"))
    with memdb.open(str(tmp_path / "s.zarr")) as db:
        rows = db.lds(Given(np.tile(values, n_train)), resamples=3).to_arrow_table()
    assert rows["lds"].to_pylist() == [None] * len(values)


def test_a_resample_is_spearman_of_the_drawn_models(stats):
    rng = np.random.default_rng(9)
    one, other = rng.integers(0, 6, 30).astype(float), rng.normal(size=30)
    counts = Bootstrap(20, seed=3).counts(30)
    expected = [stats.spearmanr(np.repeat(one, c), np.repeat(other, c)).statistic for c in counts]
    assert spearman(one, other, counts) == pytest.approx(expected)
    assert np.isnan(spearman(one * 0, other, counts)).all()


@pytest.mark.parametrize(
    ("scores", "options", "error", "message"),
    [
        (np.zeros((N_TRAIN, N_TEST)), {}, InvalidInputError, "other way round: save `scores.T`"),
        (np.zeros((3, 4)), {}, InvalidInputError, r"shape \(3, 4\); expected \(11, 23\)"),
        (
            np.full((N_TEST, N_TRAIN), np.inf),
            {},
            InvalidInputError,
            "inf for test example 0 and training example 0",
        ),
        (np.zeros((N_TEST, N_TRAIN)), {"outcome": "margin"}, InvalidInputError, "keeps no outcome 'margin'"),
        (np.zeros((N_TEST, N_TRAIN)), {"model_ids": ["x"]}, InvalidInputError, "no model 'x'"),
        (np.zeros((N_TEST, N_TRAIN)), {"model_ids": []}, NotEnoughModelsError, "0 models are too few"),
        (np.zeros((N_TEST, N_TRAIN)), {"resamples": 0}, InvalidInputError, "resamples 0"),
    ],
)
def test_scores_that_cannot_be_graded_are_refused(confident, scores, options, error, message):
    with pytest.raises(error) as raised:
        confident[0].lds(Given(scores), **options)
    said = f"{raised.value} {raised.value.hint}"
    assert re.search(message, said), said
