"""Questions answered with predictions and screened tests: from a store with sketches to a command's output."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from support import sketched
from support.commands import run
from support.stores import dicts, one

import memdb
from memdb.errors import DamagedError, InvalidInputError, MemdbError, NotEnoughModelsError, NotFoundError
from memdb.format.sketches import Projection
from memdb.query.options import Order
from memdb.store.read_sketches import all_sketched

N_MODELS, G = 120, 6
SHAPE = sketched.N_TRAIN, sketched.N_TEST


@pytest.fixture(scope="module")
def effects():
    return sketched.planted()


@pytest.fixture(scope="module")
def url(tmp_path_factory, effects):
    made = tmp_path_factory.mktemp("sketched") / "store.zarr"
    with sketched.new_store(made) as db:
        sketched.fill(db, effects, N_MODELS, G)
    return made


@pytest.fixture(scope="module")
def db(url):
    with memdb.open(str(url)) as opened:
        yield opened


@pytest.fixture(scope="module")
def with_nulls(tmp_path_factory, effects):
    with sketched.new_store(tmp_path_factory.mktemp("nulls") / "store.zarr") as made:
        yield sketched.fill(made, effects, N_MODELS, G, in_all=[5])


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    path = tmp_path_factory.mktemp("priors") / "noise.npy"
    np.save(path, np.random.default_rng(0).normal(size=SHAPE))
    return path


def test_predictions_find_what_was_planted(db, effects):
    facts = db.estimator_facts()
    assert facts["estimator"] == "informed"
    assert (facts["n_sketched"], facts["interval"]) == (G, "calibrated")
    assert 0 < facts["prior_gain"] < 1
    assert facts["prior_spread"] > 0
    hits = {"raw": 0, "informed": 0}
    for z in range(0, sketched.N_TEST - 2, 2):
        planted = set(np.argsort(-effects[:, z])[:3])
        for kind in hits:
            rows = db.top_influence(test_id=z, k=3, estimator=kind).fetchall()
            hits[kind] += len(planted & {row[0] for row in rows})
    assert hits["informed"] > 1.3 * hits["raw"]


def test_every_way_of_asking_gives_the_same_prediction(db):
    pairs = dicts(db.pairs(top=5, estimator="informed"))
    assert len(pairs) == 5 * sketched.N_TEST
    ids = list(range(sketched.N_TEST))
    by_sql = {(row["test_id"], row["train_id"]): row for row in dicts(db.sql(
        f"FROM influence_of({ids})", estimator="informed"
    ))}  # fmt: skip
    assert len(by_sql) == SHAPE[0] * SHAPE[1]
    names = ("influence", "informed", "lo", "hi", "n_in", "k_out")
    for row in pairs[::29]:
        z, i = row["test_id"], row["train_id"]
        ways = [
            by_sql[z, i],
            one(db.score(i, test_id=z, estimator="informed")),
            next(
                r
                for r in dicts(db.top_influence(test_id=z, k=200, estimator="informed"))
                if r["train_id"] == i
            ),
            next(
                r
                for r in dicts(db.top_influence(train_id=i, k=200, estimator="informed"))
                if r["test_id"] == z
            ),
        ]
        for other in ways:
            assert [other[name] for name in names] == pytest.approx([row[name] for name in names], abs=1e-5)
        assert row["lo"] <= row["informed"] <= row["hi"]
        assert one(db.score(i, test_id=z))["influence"] == row["influence"]


def test_pairs_are_the_strongest_predictions_in_each_direction(db):
    ids = list(range(sketched.N_TEST - 1))  # all models agree on the last one
    rows = dicts(db.sql(f"FROM influence_of({ids})", estimator="informed"))
    for direction, sign in (("helps", 1), ("hurts", -1)):
        found = dicts(db.pairs(top=4, direction=direction, estimator="informed"))
        for z in ids:
            expected = sorted(-sign * row["informed"] for row in rows if row["test_id"] == z)[:4]
            shown = [-sign * row["informed"] for row in found if row["test_id"] == z]
            assert shown == pytest.approx(expected, abs=1e-5)
    least = dicts(db.pairs(min_influence=0.05, same_class=True, estimator="informed"))
    assert {(r["test_id"], r["train_id"]) for r in least} == {
        (r["test_id"], r["train_id"]) for r in rows if r["informed"] >= 0.05 and r["same_class"]
    }


def test_a_prior_of_noise_leaves_the_raw_answer(db, noise):
    raw, informed = (
        dicts(db.top_influence(test_id=3, **given))
        for given in ({}, {"estimator": "informed", "screen_by": noise})
    )
    assert [{name: v for name, v in row.items() if name != "informed"} for row in informed] == raw
    assert all(row["informed"] == row["influence"] for row in informed)
    assert "explains nothing" in db.estimator_facts(screen_by=noise)["why_raw"]
    assert (
        dicts(db.pairs(top=2, estimator="informed", screen_by=noise))[5].items()
        >= dicts(db.pairs(top=2))[5].items()
    )


def test_screened_pairs_are_estimated_by_the_models_that_test(db, effects):
    found = dicts(db.pairs(screen=40))
    assert len(found) == 40
    facts = db.estimator_facts(estimator="raw", screen=40)
    assert (facts["n_prior_models"], facts["n_testing_models"]) == (10, N_MODELS - 10)
    assert {row["n_in"] + row["n_out"] for row in found} == {N_MODELS - 10}
    assert [row["q_value"] for row in found] == sorted(row["q_value"] for row in found)
    sure = [row for row in found if row["q_value"] <= 0.1]
    assert len(sure) >= 10
    assert np.mean([effects[row["train_id"], row["test_id"]] > 0 for row in sure]) > 0.8
    assert all(row["lo"] <= row["influence"] <= row["hi"] for row in found)
    one_test = dicts(db.top_influence(test_id=4, screen=15, k=30))
    assert {row["test_id"] for row in one_test} == {4}
    assert len(one_test) == 15
    assert all(row["same_class"] for row in dicts(db.pairs(screen=20, same_class=True)))
    assert len(dicts(db.pairs(screen="auto"))) == N_MODELS


def test_scores_of_any_format_are_the_same_prior(db, effects, tmp_path):
    scores = (effects + 0.05 * np.random.default_rng(1).normal(size=SHAPE)).astype(np.float32)
    np.save(tmp_path / "a.npy", scores)
    np.savez(tmp_path / "b.npz", scores=scores)
    columns = pa.table({str(z): scores[:, z] for z in range(SHAPE[1])})
    parquet.write_table(columns, tmp_path / "c.parquet")
    csv.write_csv(columns, tmp_path / "d.csv")
    np.savetxt(tmp_path / "e.csv", scores, delimiter=",")
    train, test = np.divmod(np.random.default_rng(0).permutation(scores.size), SHAPE[1])
    pairs = pa.table({"train_id": train, "test_id": test, "score": scores[train, test]})
    parquet.write_table(pairs, tmp_path / "f.parquet")
    answers = [
        db.top_influence(test_id=3, estimator="informed", screen_by=path).fetchall()
        for path in sorted(tmp_path.iterdir())
    ]
    assert all(answer == answers[0] for answer in answers[1:])
    assert db.estimator_facts(screen_by=tmp_path / "a.npy")["estimator"] == "informed"
    found = db.pairs(screen=30, screen_by=tmp_path / "a.npy").project("n_in + n_out").fetchall()
    assert set(found) == {(N_MODELS,)}  # none of them is behind the scores


def files_of(tmp_path):
    nan = np.zeros(SHAPE)
    nan[3, 4] = np.nan
    np.save(tmp_path / "nan.npy", nan)
    np.save(tmp_path / "constant.npy", np.full(SHAPE, 2.5))
    np.save(tmp_path / "inf.npy", np.full(SHAPE, np.inf))
    np.save(tmp_path / "turned.npy", np.zeros(SHAPE).T)
    np.save(tmp_path / "text.npy", np.full(SHAPE, "x"))
    np.savez(tmp_path / "two.npz", a=nan, b=nan)
    (tmp_path / "torn.npy").write_bytes((tmp_path / "nan.npy").read_bytes()[:-9])
    (tmp_path / "words.csv").write_text("train_id,test_id,score\n0,0,high\n")
    (tmp_path / "outside.csv").write_text("train_id,test_id,score\n0,0,1\n5,30,2\n")
    (tmp_path / "short.csv").write_text("0,1\n2,3\n")
    (tmp_path / "odd.txt").write_text("1")
    (tmp_path / "no.parquet").write_text("1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nan.npy", "nan for training example 3 and test example 4"),
        ("constant.npy", "all equal"),
        ("inf.npy", "inf for training example 0 and test example 0"),
        ("turned.npy", r"scores of 30 x 120, and the store.s pairs are 120 x 30"),
        ("text.npy", "expected"),
        ("two.npz", "2 arrays"),
        ("torn.npy", "holds"),
        ("words.csv", "cannot be read"),
        ("outside.csv", "test_id 30"),
        ("short.csv", "1 row and 2 columns"),
        ("odd.txt", "is text"),
        ("no.parquet", "cannot be read"),
        ("missing.npy", "no file"),
    ],
)
def test_files_that_are_no_prior_are_refused_in_a_sentence(db, tmp_path, name, said):
    files_of(tmp_path)
    for given in ({"estimator": "informed"}, {"screen": 5}):
        with pytest.raises(MemdbError, match=said) as refused:
            db.top_influence(test_id=1, screen_by=tmp_path / name, **given)
        assert refused.value.hint
        assert name != "turned.npy" or ".T" in refused.value.hint


@pytest.mark.parametrize(
    ("n_models", "n_sketched", "outcomes", "why"),
    [
        (60, 0, ("correct", "logit_confidence"), "no gradient sketches"),
        (60, 5, ("correct",), "confidences"),
        (19, 5, ("correct", "logit_confidence"), "takes 20 models"),
        (20, 5, ("correct", "logit_confidence"), None),
        (60, 1, ("correct", "logit_confidence"), None),
    ],
)
def test_stores_without_a_prior_answer_raw_and_say_why(
    tmp_path, effects, n_models, n_sketched, outcomes, why
):
    with sketched.new_store(tmp_path / "store.zarr", outcomes) as made:
        sketched.fill(made, effects, n_models, n_sketched)
        facts = made.estimator_facts()
        rows = dicts(made.top_influence(test_id=2, estimator="informed"))
        assert len(rows) == 20
        if why is None:
            assert facts["estimator"] == "informed" or "explains nothing" in facts["why_raw"]
            return
        assert why in facts["why_raw"]
        assert all(row["informed"] == row["influence"] for row in rows)
        kind = NotEnoughModelsError if n_models < 20 else InvalidInputError
        with pytest.raises(kind, match=why):
            made.pairs(screen=5)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["helps", "hurts", "both"])
@pytest.mark.parametrize("order", ["informed", "influence", "lo"])
def test_lists_are_those_of_a_statement_to_the_bit(with_nulls, direction, order):
    key = Order(order, direction).key(order)
    for fixed, listed in (("test_id", "train_id"), ("train_id", "test_id")):
        statement = (
            "SELECT *, count(informed) OVER () AS n_ranked FROM influence "  # noqa: S608
            f"WHERE {fixed} = 5 AND same_class ORDER BY {key} NULLS LAST, {listed}"
        )
        expected = dicts(with_nulls.sql(statement, estimator="informed"))
        given = {fixed: 5, "order": order, "direction": direction, "same_class": True, "k": 1000}
        found = dicts(with_nulls.top_influence(**given, estimator="informed"))
        assert [{name: row[name] for name in expected[0]} for row in found] == expected
        unknown = [row for row in found if row["influence"] is None]
        assert len(unknown) == (1 if fixed == "test_id" else len(found))
        assert all(row[name] is None for row in unknown for name in ("informed", "lo", "hi"))


def test_an_empty_store_says_so(tmp_path):
    with sketched.new_store(tmp_path / "store.zarr") as made:
        for ask in (
            lambda: made.top_influence(test_id=0, estimator="informed"),
            lambda: made.pairs(top=1, estimator="informed"),
            lambda: made.pairs(screen=1),
        ):
            with pytest.raises(NotEnoughModelsError, match="no models yet"):
                ask()


def test_sketches_by_another_projection_are_passed_over(tmp_path, effects):
    with sketched.new_store(tmp_path / "store.zarr") as made:
        sketched.fill(made, effects, 60, 5)
        sketched.fill(made, effects, 30, 4, seed=1, projection=Projection(sketched.SIZE, 9))
        assert made.pairs(screen=5).fetchall()
        facts = made.estimator_facts(estimator="raw", screen=5)
        assert (len(all_sketched(made.snapshot)), facts["prior"]) == (9, "gradient sketches of 5 models")


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_sketches_that_are_not_finite_are_refused_until_their_model_is_retracted(tmp_path, effects, spoilt):
    with sketched.new_store(tmp_path / "store.zarr") as made:
        sketched.fill(made, effects, 40, 5)
        sketched.fill(made, effects, 20, 2, seed=1, spoilt=spoilt)
        with pytest.raises(DamagedError, match="not finite") as refused:
            made.top_influence(test_id=3, estimator="informed")
        model_id = str(refused.value).partition("model ")[2].split()[0]
        made.retract([model_id], "its sketch is not finite")
        assert made.estimator_facts()["estimator"] in {"informed", "raw"}
        assert len(made.top_influence(test_id=3, estimator="informed").fetchall()) == 20


def test_models_that_come_later_change_the_answer_after_a_refresh(url, effects, tmp_path):
    shutil.copytree(url, tmp_path / "store.zarr")
    with memdb.open(str(tmp_path / "store.zarr")) as opened:
        before = dicts(opened.top_influence(test_id=3, estimator="informed"))
        sketched.fill(opened, effects, 40, 2, seed=1)
        after = dicts(opened.top_influence(test_id=3, estimator="informed"))
        assert opened.estimator_facts()["n_sketched"] == G + 2
        assert after[0]["n_in"] + after[0]["n_out"] == N_MODELS + 40
        assert before != after


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["top-influence", "--test-id", "3", "--estimator", "magic"], "unknown --estimator"),
        (["top-influence", "--test-id", "3", "--screen", "0"], "neither auto nor a number"),
        (["top-influence", "--test-id", "3", "--screen", "many"], "neither auto nor a number"),
        (["top-influence", "--test-id", "3", "--screen", "5", "--estimator", "informed"], "one at a time"),
        (["top-influence", "--test-id", "3", "--screen-by", "x.npy"], "does nothing to raw"),
        (["top-influence", "--target-id", "3", "--estimator", "informed"], "test examples"),
        (["top-influence", "--target-id", "3", "--screen", "5"], "test examples"),
        (["top-influence", "--test-id", "3", "--estimator", "informed", "--ranks"], "rank intervals"),
        (
            ["top-influence", "--test-id", "3", "--estimator", "informed", "--fdr", "anytime"],
            "does not go with",
        ),
        (
            ["top-influence", "--test-id", "3", "--estimator", "informed", "--order", "q_value"],
            "does not go with",
        ),
        (
            ["top-influence", "--test-id", "3", "--estimator", "informed", "--outcome", "confidence"],
            "outcome",
        ),
        (["score", "--train-id", "3", "--estimator", "informed"], "not of memorization"),
        (["pairs", "--screen", "5", "--top", "3"], "--top chooses pairs"),
        (["pairs", "--screen", "5", "--min-memorization", ".2"], "--min-memorization chooses pairs"),
    ],
)
def test_contradictions_are_refused_in_the_words_of_the_command_line(url, arguments, said):
    done = run(*arguments, "--store", str(url), cwd=url.parent)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_commands_say_what_an_answer_rests_on(url, noise):
    store = ["--store", str(url)]
    shown = run("top-influence", "--test-id", "3", "--estimator", "informed", *store, cwd=url.parent)
    assert "calibrated" in shown.stdout
    assert f"gradient sketches of {G} models" in " ".join(shown.stdout.split())
    assert "no guarantee" in shown.stderr
    said = json.loads(
        run(
            "top-influence", "--test-id", "3", "--estimator", "informed", "-f", "json", *store, cwd=url.parent
        ).stdout
    )
    assert (said["estimator"], said["interval"], said["n_sketched"]) == ("informed", "calibrated", G)
    raw = run(
        "pairs", "--top", "2", "--estimator", "informed", "--screen-by", str(noise), *store, cwd=url.parent
    )
    assert "Raw estimates: " in raw.stderr
    assert "calibrated" not in raw.stdout
    agreed = run("top-influence", "--test-id", "29", "--estimator", "informed", *store, cwd=url.parent)
    assert "All models agree" in agreed.stderr
    tested = run("pairs", "--screen", "auto", *store, cwd=url.parent)
    assert f"Tested by {N_MODELS - 10} models" in tested.stdout
    sql = "SELECT informed FROM influence WHERE train_id = 3 AND test_id = 3"
    for found in (
        run("sql", sql, "--estimator", "informed", "-f", "json", *store, cwd=url.parent),
        run(
            "score",
            "--train-id",
            "3",
            "--test-id",
            "3",
            "--estimator",
            "informed",
            "-f",
            "json",
            *store,
            cwd=url.parent,
        ),
    ):
        assert json.loads(found.stdout)["rows"][0]["informed"] is not None


def test_a_missing_file_is_not_found(db, tmp_path):
    with pytest.raises(NotFoundError):
        db.estimator_facts(screen_by=tmp_path / "gone.npy")


@pytest.mark.slow
def test_what_predictions_rest_on_is_kept_and_found_until_models_change(url, tmp_path, monkeypatch):
    monkeypatch.setattr("memdb.query.informed.kept.WORTH_KEEPING", 0)
    monkeypatch.setenv("MEMDB_CACHE_DIR", str(tmp_path / "cache"))
    copy = shutil.copytree(url, tmp_path / "store.zarr")

    def asked():
        with memdb.open(str(copy)) as opened:
            rows = dicts(opened.top_influence(test_id=4, k=50, estimator="informed"))
            return rows, opened.estimator_facts(), dicts(opened.pairs(screen="auto"))

    def kept():
        return {path for path in (tmp_path / "cache").rglob("*") if path.is_file()}

    first, names = asked(), kept()
    assert len(names) == 4  # sketches, calibration, and confidences, which screening adds up otherwise
    with monkeypatch.context() as nothing_computed:
        for name in ("kernels_of", "errors_of", "sampled"):
            nothing_computed.setattr(f"memdb.query.informed.predictor.{name}", None)
        assert asked() == first
    victim = max(names, key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1])
    assert asked() == first
    with memdb.open(str(copy)) as opened:
        models = [model.model_id for _, model in opened.snapshot.models]
        opened.retract(models[-1:], "test")
    assert asked() != first
    assert len(kept()) == 7  # sketches stay what they are
    monkeypatch.setenv("MEMDB_CACHE_DIR", "none")
    assert asked() is not None
    assert len(kept()) == 7
