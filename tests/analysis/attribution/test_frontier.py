"""Estimates from few models judged by others, against influences that are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.attributions import Given
from support.commands import run
from support.linear import N_TEST, N_TRAIN, linear_database
from support.stores import bits_of, dicts

import memdb
from memdb.analysis.attribution.estimates import Estimate
from memdb.analysis.attribution.estimators import Raw, Shrunk
from memdb.analysis.attribution.pilots import order_of_models, pilots_of
from memdb.analysis.attribution.plain_models import plain_models
from memdb.analysis.attribution.truth import Truth
from memdb.errors import InvalidInputError, NotEnoughModelsError


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    with linear_database(tmp_path_factory.mktemp("linear") / "s.zarr", sketches=6, sketch_size=8) as db:
        yield db


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """2,400 models of 50 examples, each of which helps one of ten test examples, by .02 to .14."""
    rng = np.random.default_rng(1)
    masks = rng.random((2400, 50)).argsort(axis=1) < 35
    effects = np.zeros((50, 10))
    effects[np.arange(50), np.arange(50) % 10] = rng.permutation(np.linspace(0.02, 0.14, 50))
    chances = 0.5 + (masks - 0.7) @ effects
    folder = tmp_path_factory.mktemp("known")
    right = rng.random(chances.shape) < chances
    np.savez(folder / "r.npz", mask=masks, train_correct=masks, test_correct=right)
    memdb.import_file(folder / "r.npz", str(folder / "s.zarr"))
    influence = effects - (effects.sum(axis=0) - effects) / 49
    with memdb.open(str(folder / "s.zarr")) as db:
        yield db, influence.T.astype(np.float32)


def measures(truth, estimate):
    return {(m.name, m.at): m.value for m in truth.judge(estimate)}


@pytest.fixture(scope="module")
def truth(known):
    db, _ = known
    return Truth.of(db.relations(), order_of_models(db.snapshot)[400:], np.arange(10), [20, 50], 0.95)


def test_the_truth_is_judged_without_its_noise(known, truth):
    _, influence = known
    exact = measures(truth, Estimate(influence, influence - 1e-6, influence + 1e-6))
    assert exact["correlation", None] == pytest.approx(1, abs=0.05)
    assert exact["error", 50] == pytest.approx(0, abs=0.02)
    assert exact["coverage", None] == pytest.approx(0.95, abs=0.04)
    assert exact["strength", 50] == pytest.approx(np.sort(influence.ravel())[-50:].mean(), abs=0.01)
    assert exact["precision", 50] < 1


def test_an_error_is_what_it_is_to_the_true_influences(known, truth):
    _, influence = known
    noise = np.random.default_rng(4).normal(0, 0.1, influence.shape).astype(np.float32)
    off = influence + noise
    found = measures(truth, Estimate(off))
    strongest = np.argsort(-influence.ravel())[:50]
    assert found["error", 50] == pytest.approx(np.sqrt((noise.ravel()[strongest] ** 2).mean()), abs=0.02)
    assert found["correlation", None] == pytest.approx(
        np.corrcoef(off.ravel(), influence.ravel())[0, 1], abs=0.05
    )
    assert ("coverage", None) not in found


def test_what_exact_influences_would_score_is_known_without_them(known, truth):
    _, influence = known
    said = {(m.name, m.at): m.value for m in truth.judge_exact()}
    for key, value in said.items():
        assert value == pytest.approx(measures(truth, Estimate(influence))[key], abs=0.12), key


def test_raw_and_shrunk_are_what_questions_answer(known):
    db, _ = known
    tests = np.arange(10)
    raw = Raw(db.relations(), "correct").on(tests)
    rows = db.sql(
        "SELECT influence, lo, hi FROM influence ORDER BY test_id, train_id", interval="fixed"
    ).fetchall()
    found = np.stack([raw.values, raw.lo, raw.hi], axis=2).reshape(-1, 3)
    np.testing.assert_allclose(found, np.array(rows), atol=1e-6)
    pairs = db.pairs(top=50).order("test_id, train_id").fetchnumpy()
    shrunk = Shrunk(db.relations(), "correct").on(tests).values
    np.testing.assert_allclose(shrunk[pairs["test_id"], pairs["train_id"]], pairs["shrunk"], atol=2e-4)
    sure = np.zeros((10, 50), dtype=bool)
    sure[raw.certified.rows, raw.certified.trains] = True
    helps = pairs["influence"] > 0
    one_sided = pairs["q_value"] / 2  # ranks differ a little: pairs that hurt are tested there, too
    assert (sure[pairs["test_id"], pairs["train_id"]][helps] == (one_sided[helps] <= 0.1)).mean() > 0.98


def test_informed_is_what_questions_answer(linear):
    from memdb.analysis.attribution.sketched import Informed

    found = Informed(linear.relations(), "correct").on(np.array([3, 17]))
    sql = "SELECT informed, lo, hi FROM influence WHERE test_id = 17 ORDER BY train_id"
    rows = linear.sql(sql, estimator="informed").fetchall()
    answer = np.stack([found.values[1], found.lo[1], found.hi[1]], axis=1)
    np.testing.assert_allclose(answer, np.array(rows), atol=2e-3)


def test_no_pilot_has_a_say_in_the_truth(linear):
    order = order_of_models(linear.snapshot)
    assert sorted(order.tolist()) == list(range(320))
    few = pilots_of(linear.relations(), np.sort(order[:30]))
    masks, _, test = bits_of(linear.snapshot)
    chosen = np.sort(order[:30])
    mine = bits_of(few.snapshot)
    np.testing.assert_array_equal(mine[0], masks[chosen])
    np.testing.assert_array_equal(mine[2], test[chosen])


def test_the_frontier_has_a_row_for_each_measure_of_each_estimate(linear):
    rows = dicts(linear.frontier(models=[25, 100], truth=200, k=[20], tests=12))
    found = {(row["estimator"], row["n_models"]) for row in rows}
    names = ("raw", "shrunk", "informed", "trak", "screened")
    assert found == {("exact", None)} | {(name, n) for name in names for n in (25, 100)}
    assert {row["n_truth"] for row in rows} == {200}
    assert {row["n_pairs"] for row in rows} == {12 * N_TRAIN}
    seconds = [model.seconds for _, model in linear.snapshot.models]
    (cost,) = {row["seconds"] for row in rows if row["n_models"] == 100}
    assert min(seconds) * 100 <= cost <= max(seconds) * 100
    plain = [row for row in rows if row["plain_models"] is not None]
    assert plain
    assert all(25 <= row["plain_models"] <= 100 for row in plain)
    assert not {row["estimator"] for row in plain} & {"raw", "exact"}
    assert all(0 <= row["value"] <= 1 for row in rows if row["measure"] in {"precision", "coverage"})


def test_better_scores_are_worth_more_plain_models(known):
    db, influence = known
    rows = dicts(
        db.frontier(scores={"true": Given(influence), "noise": Given(-influence)}, k=[50], truth=1600)
    )
    worth = {row["estimator"]: row for row in rows if row["measure"] == "correlation"}
    assert worth["true"]["plain_bound"] == "at least"
    assert worth["noise"]["plain_bound"] == "at most"
    assert worth["true"]["seconds"] is None
    raw = [row for row in rows if (row["estimator"], row["measure"]) == ("raw", "correlation")]
    assert [row["n_models"] for row in raw] == [25, 50, 100, 200, 400, 800]
    assert raw[-1]["value"] > raw[0]["value"]


def test_beyond_the_pilots_plain_models_follow_from_how_noise_shrinks(known):
    db, influence = known
    noise = np.random.default_rng(3).normal(size=influence.shape)
    scores = influence + 0.75 * influence.std() * noise
    rows = dicts(db.frontier(scores={"near": Given(scores)}, k=[50], truth=1600, estimators=["raw"]))
    near = next(row for row in rows if (row["estimator"], row["measure"]) == ("near", "correlation"))
    noise_of_one_model = 0.25 * (1 / 0.7 + 1 / 0.3)
    c = np.corrcoef(scores.ravel(), influence.ravel())[0, 1]
    expected = noise_of_one_model / influence.var() * c**2 / (1 - c**2)
    assert near["plain_bound"] == "at least"
    assert near["plain_models"] == 800 < near["plain_extrapolated"]
    assert near["plain_extrapolated"] == pytest.approx(expected, rel=0.3)
    others = [row for row in rows if row["measure"] != "correlation" or row["estimator"] == "raw"]
    assert {row["plain_extrapolated"] for row in others} == {None}


def test_a_value_that_all_numbers_of_models_have_is_worth_none_of_them():
    same = {"measure": "certified", "at": None, "value": 0.0}
    rows = [{"estimator": "raw", "n_models": n, **same} for n in (25, 50)]
    assert set(plain_models({"estimator": "screened", "n_models": 25, **same}, rows, 0.5).values()) == {None}
    found = plain_models({"estimator": "screened", "n_models": 25, **same, "value": 1.0}, rows, 0.5)
    assert (found["plain_models"], found["plain_bound"]) == (50, "at least")


def test_a_truth_that_is_mostly_noise_tells_no_numbers_of_models_beyond_the_pilots():
    raw, better = ({"measure": "correlation", "at": None, "value": value} for value in (0.1, 0.5))
    rows = [{"estimator": "raw", "n_models": 50, **raw}]
    better |= {"estimator": "informed", "n_models": 25}
    assert plain_models(better, rows, 0.05)["plain_extrapolated"] == round(50 * (0.25 / 0.75) / (0.01 / 0.99))
    assert plain_models(better, rows, 0.04)["plain_extrapolated"] is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"estimators": ["magic"]}, InvalidInputError, "unknown estimator 'magic'"),
        ({"truth": 315}, InvalidInputError, "truth 315 is not a number from 40 to 310"),
        ({"models": [200]}, InvalidInputError, "models 200 is not a number from 10 to 107"),
        ({"k": [0]}, InvalidInputError, "k 0 is not"),
        ({"tests": 0}, InvalidInputError, "tests 0 is not"),
        ({"level": 2}, InvalidInputError, "level 2"),
        ({"outcome": "loss"}, InvalidInputError, "unknown outcome"),
        ({"scores": {"raw": Given(np.eye(N_TEST, N_TRAIN))}}, InvalidInputError, "cannot be called 'raw'"),
        ({"scores": {"x": Given(np.eye(N_TRAIN, N_TEST))}}, InvalidInputError, "expected"),
        (
            {"scores": {"x": Given(np.full((N_TEST, N_TRAIN), 2.0))}},
            InvalidInputError,
            "x gives 2 to every pair",
        ),
        (
            {"scores": {"x": Given(np.full((N_TEST, N_TRAIN), np.nan))}},
            InvalidInputError,
            "holds nan for test",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused(linear, options, error, message):
    with pytest.raises(error, match=message):
        linear.frontier(**options)


def test_too_few_models_for_a_truth_are_refused(asked):
    with pytest.raises(NotEnoughModelsError, match="has 37 models, too few for a truth"):
        asked.frontier()


# ---------------------------------------------------------------- the commands


def test_the_commands_show_and_write_it(linear, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "mine.npy", rng.normal(size=(N_TEST, N_TRAIN)))
    ids = rng.permutation(N_TRAIN)[:20].astype(np.int32)
    pairs = {"tr_idx": ids, "tt_idx": ids % N_TEST, "infl": rng.random(20) / 2, "mem": rng.random(20)}
    np.savez(tmp_path / "listed.npz", **pairs)
    shown = run(
        "frontier",
        "-s",
        linear.url,
        "--models",
        50,
        "--scores",
        "mine.npy",
        "--scores",
        "listed.npz",
        "-k",
        20,
        cwd=tmp_path,
    )
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for word in ("exact", "informed", "mine.npy", "listed.npz", "As good as", "● raw"):
        assert word in shown.stdout
    written = run("frontier", "-s", linear.url, "--models", 50, "-k", 20, "-f", "json", cwd=tmp_path)
    document = json.loads(written.stdout)
    assert document["n_pilots"] == 107
    assert {row["measure"] for row in document["rows"]} >= {"precision", "error", "certified"}
    graded = run("lds", "mine.npy", "listed.npz", "-s", linear.url, "--resamples", 5, cwd=tmp_path)
    assert "listed.npz" in graded.stdout, graded.stderr
    assert "ceiling" in graded.stdout
    planned = run("plan", "--lds", "0.4", "-s", linear.url, cwd=tmp_path)
    assert "LDS of 0.4" in planned.stdout, planned.stderr


@pytest.mark.slow
def test_the_figure_is_drawn_whole_and_the_same_again(linear, tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("one.svg", "two.svg", "one.png"):
        done = run(
            "frontier",
            "-s",
            linear.url,
            "--models",
            50,
            "-k",
            20,
            "-o",
            name,
            "--estimator",
            "raw",
            cwd=tmp_path,
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert f"Drew {name}" in done.stderr
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["frontier", "--measure", "beauty"], "unknown --measure 'beauty'"),
        (["frontier", "--against", "money"], "unknown --against 'money'"),
        (["frontier", "--plot", "x.pdf"], "Use one of .svg, .png."),
        (["frontier", "-o", "x.svg", "--format", "nonsense"], "unknown format 'nonsense'"),
        (["frontier", "--scores", "nowhere.npy"], "no file nowhere.npy"),
        (["lds", "nowhere.npy"], "no file nowhere.npy"),
        (["frontier", "--scores", "text.npz"], "which of them are the scores"),
        (["frontier", "--scores", "far.npz"], "names test example 99, and the store has 24"),
    ],
)
def test_files_and_words_that_make_no_sense_are_refused_in_a_line(linear, tmp_path, command, message):
    np.savez(tmp_path / "text.npz", a=np.eye(3), b=np.eye(4))
    ids = np.array([99], dtype=np.int32)
    np.savez(tmp_path / "far.npz", tr_idx=ids * 0, tt_idx=ids, infl=np.ones(1), mem=np.ones(1))
    done = run(*command, "-s", linear.url, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert message in done.stderr


def test_pairs_that_feldman_and_zhang_select_are_of_one_class_influential_and_memorized(known):
    _, influence = known
    rng = np.random.default_rng(7)
    memorized = rng.random(50) < 0.6
    values = np.where(rng.random(influence.shape) < 0.3, 0.2, 0.0).astype(np.float32)
    labels = rng.integers(0, 2, 10, dtype=np.int32), rng.integers(0, 2, 50, dtype=np.int32)
    both = (values, values)
    truth = Truth(
        np.arange(10), np.arange(50), *labels, both, (values * 0, values * 0), memorized, [20], 0.95
    )
    selected = (labels[0][:, None] == labels[1]) & memorized & (values >= 0.15)
    n = int(selected.sum())
    assert n >= 10
    assert measures(truth, Estimate(selected.astype(np.float32)))["feldman_zhang", n] == 1
    assert measures(truth, Estimate(-selected.astype(np.float32)))["feldman_zhang", n] == 0
    everywhere = measures(truth, Estimate((values + memorized).astype(np.float32)))  # of other classes, too
    assert everywhere["feldman_zhang", n] == 1
