"""Runs as people hold them: each format under its names, each quirk with its right outcome."""

from __future__ import annotations

import numpy as np
import pytest
from support.held import LABELS, MASK, PLAIN, RIGHT, N, margins, shards
from support.stores import N_TEST, N_TRAIN, bits_of

from memdb.errors import InvalidInputError


def test_the_last_epoch_is_the_one_with_the_highest_number(at, tmp_path):
    np.save("y_train.npy", LABELS["train"])
    for model in range(N):
        folder = tmp_path / "run" / f"experiment-{model}_{N}"
        (folder / "logits").mkdir(parents=True)
        np.save(folder / "keep.npy", MASK[model])
        right = np.zeros((N_TRAIN, 1, 1, 3), "f4")
        right[np.arange(N_TRAIN), 0, 0, LABELS["train"]] = 5
        np.save(folder / "logits" / "10.npy", right)
        np.save(folder / "logits" / "9.npy", -right)
        np.save(folder / "logits" / "best.npy", -right)
    (tmp_path / "run" / "experiment-3_12" / "logits" / "9.npy").write_bytes(b"of no last epoch")
    done, db = at(tmp_path / "run", labels="y_train.npy")
    assert done.notes == ("There are no test examples: all questions are about training examples.",)
    assert db.sql("SELECT avg(p_in), avg(p_out) FROM memorization").fetchall() == [(1.0, 1.0)]
    assert (np.unpackbits(db.snapshot.mask(), axis=1, count=N, bitorder="little").T == MASK).all()


def test_models_that_stopped_at_another_epoch_are_named(at, tmp_path):
    for model in range(N):
        (tmp_path / "run" / str(model)).mkdir(parents=True)
        np.save(tmp_path / "run" / str(model) / "keep.npy", MASK[model])
        name = "scores_9.npy" if model == 4 else "scores_10.npy"
        np.save(tmp_path / "run" / str(model) / name, np.where(RIGHT["train"][model], 1.0, -1.0))
    said = "The last epoch is scores_10.npy for 11 models and another for 1, such as "
    assert any(note.startswith(said) for note in at(tmp_path / "run")[0].notes)


def soft(value, dtype="f8"):
    values = np.full((N, N_TRAIN), 0.5, dtype)
    values[0, 0] = value
    return values


OVER_ONE = {"f4": np.nextafter(np.float32(1), np.float32(2)), "f2": np.float16(1.001), "f8": 1 + 1e-7}
INFINITE_LOGITS = np.zeros((N, N_TRAIN, 3), "f4")
INFINITE_LOGITS[0, 0, LABELS["train"][0]] = np.inf
ENDS = {
    "p": {**PLAIN, "train_confidence": soft(1), "test_confidence": np.full((N, N_TEST), 0.0)},
    "logit": {**PLAIN, "train_logit_confidence": soft(np.inf), "test_logit_confidence": np.full((N, N_TEST), -np.inf)},
    "lira": {"keep": MASK, "scores": soft(np.inf)},
    "logits": {"keep": MASK, "logits": INFINITE_LOGITS, "train_labels": LABELS["train"]},
} | {
    f"p of {kind}": {**PLAIN, "train_confidence": soft(over, kind), "test_confidence": np.zeros((N, N_TEST), kind)}
    for kind, over in OVER_ONE.items()
}  # fmt: skip


@pytest.mark.parametrize("given", ENDS.values(), ids=ENDS.keys())
def test_certainty_is_the_largest_confidence_in_every_format(at, given):
    np.savez("runs.npz", **given)
    _, db = at("runs.npz")
    assert db.snapshot.outcome_values("train/logit_confidence")[0, 0] == 30
    if "test_correct" in given:
        assert (db.snapshot.outcome_values("test/logit_confidence") == -30).all()


def test_infinite_margins_become_the_largest(at, tmp_path):
    margins(tmp_path / "dm")
    np.save(tmp_path / "dm" / "train_margins.npy", soft(np.inf, "f2"))
    _, db = at(tmp_path / "dm")
    assert db.snapshot.outcome_values("train/margin")[0, 0] == np.finfo("f2").max


@pytest.mark.parametrize(
    ("value", "said"), [(1.01, "1.01, which is not a probability"), (-0.5, "-0.5, which"), (np.nan, "nan")]
)
def test_what_no_rounding_explains_is_refused(at, value, said):
    np.savez("p.npz", **PLAIN, train_confidence=soft(value), test_confidence=np.zeros((N, N_TEST)))
    with pytest.raises(InvalidInputError, match=said):
        at("p.npz")


def aux(folder):
    for model in range(N):
        (folder / "0.7" / str(model)).mkdir(parents=True)
        index = {"train": np.flatnonzero(MASK[model])[::-1], "removed": np.flatnonzero(~MASK[model])}
        index["test"] = np.random.default_rng(model).permutation(N_TEST)
        right = {k: RIGHT["test" if k == "test" else "train"][model][v] for k, v in index.items()}
        arrays = {f"index_{k}": v for k, v in index.items()} | {
            f"correctness_{k}": v for k, v in right.items()
        }
        np.savez(folder / "0.7" / str(model) / "aux_arrays.npz", **arrays, subsample_idx=index["train"])


RUNS = {
    "one file": lambda folder: np.savez(folder / "runs.npz", trainset_mask=MASK, trainset_correctness=RIGHT["train"], testset_correctness=RIGHT["test"]),
    "shards": shards,
    "a shard a model": lambda folder: shards(folder, one_model=True),
    "shards of floats": lambda folder: shards(folder, floats=True),
    "aux_arrays": aux,
    "floats in the plain format": lambda folder: np.savez(folder / "runs.npz", **{n: v.astype("f4") for n, v in PLAIN.items()}),
    "other names": lambda folder: np.savez(folder / "runs.npz", Masks=MASK, correct_train=RIGHT["train"], Test_Correctness=RIGHT["test"]),
    "plain shards": lambda folder: [np.savez(folder / f"{k}.npz", **{n: v[k::2] for n, v in PLAIN.items()}) for k in range(2)],
}  # fmt: skip


@pytest.mark.parametrize("write", RUNS.values(), ids=RUNS.keys())
def test_runs_come_in_by_the_names_that_people_use(at, tmp_path, write):
    (tmp_path / "runs").mkdir()
    write(tmp_path / "runs")
    done, db = at(tmp_path / "runs")
    assert done.n_added == N
    np.savez("plain.npz", **PLAIN)
    assert db.models_sha256 == at("plain.npz", "plain.zarr")[1].models_sha256


def test_the_datamodels_tool_says_which_models_are_done(at, tmp_path):
    margins(tmp_path / "dm")
    done = np.arange(N) % 3 != 0
    np.save(tmp_path / "dm" / "_completed.npy", done[:, None])
    for name in ("train_margins", "test_margins"):
        values = np.load(tmp_path / "dm" / f"{name}.npy")
        values[~done] = np.nan
        np.save(tmp_path / "dm" / f"{name}.npy", values)
    imported, db = at(tmp_path / "dm")
    assert db.n_models == done.sum()
    assert "4 of 12 models are not completed, and not imported." in imported.notes
    assert (bits_of(db.snapshot)[0] == MASK[done]).all()


@pytest.mark.parametrize(("name", "where"), [("train", (3, 5)), ("test", (0, 0))])
def test_a_model_with_a_margin_that_is_nan_is_left_out_with_a_word(at, tmp_path, name, where):
    margins(tmp_path / "dm")
    values = np.load(tmp_path / "dm" / f"{name}_margins.npy")
    values[where] = np.nan
    np.save(tmp_path / "dm" / f"{name}_margins.npy", values)
    imported, db = at(tmp_path / "dm")
    assert db.n_models == N - 1
    assert "1 of 12 models is without a number for each margin (NaN), and not imported." in imported.notes
    assert (bits_of(db.snapshot)[0] == np.delete(MASK, where[0], axis=0)).all()
    np.save(tmp_path / "dm" / f"{name}_margins.npy", values * np.nan)
    with pytest.raises(InvalidInputError, match="holds no finished model: 12 of 12 models are without"):
        at(tmp_path / "dm", "none.zarr")


@pytest.mark.parametrize("turned", [False, True])
def test_signals_of_privacy_meter_have_models_on_axis_1(at, tmp_path, turned):
    p = np.random.default_rng(1).random((N_TRAIN, N))
    for folder, name, values in (
        ("models", "memberships", MASK.T if turned else MASK),
        ("signals", "rmia_signals", p),
        ("signals", "rmia_signals_pop", p[:3]),
    ):
        (tmp_path / "log" / folder).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "log" / folder / f"{name}.npy", values)
    done, db = at(tmp_path / "log")
    assert (done.kind, db.n_models, db.store.manifest.train.n_examples) == ("privacy_meter", N, N_TRAIN)
    assert "Axis 1 of rmia_signals is models: 12 models of 23 examples." in done.notes
    correct = np.unpackbits(db.snapshot.outcome_bits("train/correct"), axis=1, count=N, bitorder="little")
    assert (correct == (p > 0.5)).all()


def test_arrays_that_may_be_turned_do_not_come_in_without_a_word(at):
    rng = np.random.default_rng(5)
    np.savez("turned.npz", mask=rng.random((60, 40)) < 0.7, train_correct=rng.random((60, 40)) < 0.8)
    assert any("60 models of 40 training examples" in note for note in at("turned.npz")[0].notes)
