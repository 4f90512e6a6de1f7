"""What a recipe returns: taken, doubted aloud, or refused with what to write instead."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from support.cases import every

import memdb
from memdb.errors import InvalidInputError, TrainingError
from memdb.training.accuracies import learned_nothing
from memdb.training.run import warn_of_doubts

N_TRAIN, N_TEST = 40, 20
SURE = float(np.log(9))


def data():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), np.arange(60) % 3
    return memdb.Dataset(x[:N_TRAIN], y[:N_TRAIN], x[N_TRAIN:], y[N_TRAIN:])


def right(masks, seeds):
    rng = np.random.default_rng(int(seeds[0]))
    shapes = {"train/correct": (len(masks), N_TRAIN), "test/correct": (len(masks), N_TEST)}
    return {path: rng.random(shape) < 0.7 for path, shape in shapes.items()}


class Changed:
    """A recipe that returns what a function makes of right results."""

    name, version, options = "changed", "1", {}

    def __init__(self, change):
        self.change = change

    def models_per_batch(self, data, device):
        return 2

    def __call__(self, data, masks, seeds, run):
        return self.change(right(masks, seeds))


def trained(tmp_path, change, progress=None):
    told = []
    with memdb.init(str(tmp_path / "s.zarr"), data(), Changed(change), seed=1) as db:
        db.train(seeds=range(4), progress=told.append if progress is None else progress)
        return db, [status.remark for status in told if status.remark]


def each(function):
    return lambda found: {path: function(values) for path, values in found.items()}


def swapped(found):
    return {"train/correct": found["test/correct"], "test/correct": found["train/correct"]}


@pytest.mark.parametrize(
    ("change", "says", "way"),
    [
        (lambda found: None, "returned a NoneType, not a mapping", 'return {"train/correct": ...'),
        (lambda found: tuple(found.values()), "returned a tuple, not a mapping", 'return {"train/correct": ...'),
        (each(lambda v: v[0]), r"'train/correct' as bool \(40,\); expected bool \(2, 40\)", "values[None]"),
        (each(lambda v: v.astype(float)), "'train/correct' as float64", "values.astype(bool)"),
        (each(lambda v: v.astype(int)), "'train/correct' as int64", "values.astype(bool)"),
        (each(lambda v: v * 2), "as int64", "write predictions == data.train.labels"),
        (each(lambda v: v * 0.7), "as float64", "probabilities.argmax(-1) == data.train.labels"),
        (each(lambda v: v[0].astype(int)), r"as int64 \(40,\)", "values[None]"),
        (swapped, r"as bool \(2, 20\); expected bool \(2, 40\)", "are the sets swapped"),
        (each(lambda v: v.T), r"as bool \(40, 2\)", "values.T"),
        (each(lambda v: v[:1]), r"as bool \(1, 40\)", "in the order of the masks"),
        (lambda found: {"train/correct": found["train/correct"]}, "no 'test/correct' but ", 'return {"train/correct"'),
        (
            lambda found: {path.replace("/", "_"): values for path, values in found.items()},
            r"no 'train/correct' but \['test_correct', 'train_correct'\]",
            "rename 'train_correct' to 'train/correct'",
        ),
        (lambda found: {}, r"no 'train/correct' but \[\]", 'return {"train/correct"'),
    ],
)  # fmt: skip
def test_what_is_no_result_is_refused_with_what_to_write(tmp_path, change, says, way):
    with pytest.raises(TrainingError, match=says) as caught:
        trained(tmp_path, change)
    assert way in caught.value.hint
    assert "\n" not in f"{caught.value}{caught.value.hint}"


def confident(of_right, of_wrong):
    return lambda found: {
        **found,
        **{
            path.replace("correct", "logit_confidence"): np.where(v, of_right, of_wrong) for path, v in found.items()
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("of_right", "of_wrong", "says"),
    every(
        2,
        [
            (
                0.9,
                0.1,
                "all lie between 0 and 1, and above 0 for wrong predictions: they look like probabilities",
            ),
            (1.0, 0.3, "look like probabilities"),
            (0.1, 2.3, "above 0 for most wrong predictions, .*: they look like losses or margins"),
            (8.0, 3.0, "look like losses or margins"),
            (SURE, -SURE, None),
            (np.inf, -np.inf, None),
            (0.5, 0.0, None),  # two classes, undecided
            (0.9, -0.1, None),  # barely learned anything
            (np.inf, -1.0, None),
        ],
    ),
)
def test_probabilities_and_losses_given_as_logit_confidences_are_doubted_once(
    tmp_path, of_right, of_wrong, says
):
    _, remarks = trained(tmp_path, confident(of_right, of_wrong))
    assert len(remarks) == (says is not None)
    if says is not None:
        with pytest.warns(
            UserWarning, match=f"recipe changed gives logit confidences .*{says}.*memdb.log_odds"
        ):
            trained(tmp_path / "again", confident(of_right, of_wrong), warn_of_doubts)


def test_a_confidence_that_is_no_number_counts_as_wrong_and_marks_the_model(tmp_path):
    db, remarks = trained(tmp_path, confident(np.nan, -1.0))
    assert remarks == []
    assert {(m.diverged, m.train_accuracy) for _, m in db.snapshot.models} == {(True, 0.0)}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_confidences_are_stored_clipped_in_the_precision_that_the_store_keeps(tmp_path, dtype):
    given = np.random.default_rng(0).normal(0, 20, size=(4, N_TRAIN + N_TEST))

    def confident(data, masks, seeds, run):
        parts = zip(data.sets, np.split(given[seeds.astype(int)], [N_TRAIN], axis=1), strict=True)
        return {
            f"{name}/{outcome}": values if outcome == "logit_confidence" else values > 0
            for name, values in parts
            for outcome in ("correct", "logit_confidence")
        }

    kept = memdb.Outcome("logit_confidence", "real", dtype, ("train", "test"), "of this test")
    with memdb.init(
        str(tmp_path / "s.zarr"), data(), confident, recipe_version="1", outcomes=["correct", kept]
    ) as db:
        db.train(seeds=range(4), batch_models=2)
        found = np.vstack([db.snapshot.outcome_values(f"{name}/logit_confidence") for name in data().sets])
    assert (np.clip(given, -30, 30).astype(dtype) == found.T).all()


def test_log_odds_are_those_of_softmax_for_numpy_and_torch():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 7, 5)), rng.integers(0, 5, 7)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    p = np.take_along_axis(p, np.broadcast_to(labels, (2, 7))[..., None], axis=-1)[..., 0]
    found = memdb.log_odds(logits, labels)
    np.testing.assert_allclose(found, np.log(p / (1 - p)))
    np.testing.assert_allclose(memdb.log_odds(logits[0].tolist(), labels.tolist()), found[0])
    assert memdb.log_odds(logits[0, 0], labels[0]).shape == ()
    assert memdb.log_odds(logits.astype(np.float32), labels).dtype == np.float32
    assert memdb.log_odds(np.array([[1000, 0, 0]]), [0])[0] == pytest.approx(1000 - np.log(2))
    torch = pytest.importorskip("torch")
    tensor = memdb.log_odds(torch.from_numpy(logits), torch.from_numpy(labels))
    np.testing.assert_allclose(tensor.numpy(), found)
    np.testing.assert_allclose(memdb.log_odds(torch.from_numpy(logits[1]), labels).numpy(), found[1])


def test_log_odds_of_infinities_and_of_no_number():
    inf, nan = np.inf, np.nan
    logits = np.array([[inf, 0.0], [0.0, inf], [-inf, 0.0], [0.0, -inf], [nan, 0.0]])
    np.testing.assert_array_equal(memdb.log_odds(logits, np.zeros(5, int)), [inf, -inf, -inf, inf, nan])


@pytest.mark.parametrize(
    ("logits", "labels", "says"),
    [
        (np.zeros((3, 2)), [0, 1], "logits .3, 2. and labels .2,. do not fit"),
        (np.zeros(3), [[0]], "do not fit"),
        (np.float64(1), 0, "do not fit"),
        (np.zeros((2, 2)), [0, 2], "the label 2 is not one of the 2 classes"),
        (np.zeros((2, 2)), [0, -1], "the label -1 is not one"),
        (np.zeros((2, 2)), [0.0, 1.0], "labels are not integers"),
    ],
)
def test_labels_that_do_not_fit_their_logits_are_named(logits, labels, says):
    with pytest.raises(InvalidInputError, match=says):
        memdb.log_odds(logits, labels)


def test_the_package_lists_what_it_has():
    assert {"log_odds", "Dataset", "open"} <= set(dir(memdb))


RARE = np.repeat([0, 1], [470, 20])


def wrong_on(labels, **shares):
    """Whether each prediction is right, with these shares of each class right, evenly spread."""
    correct = np.zeros(len(labels), bool)
    for label, share in enumerate(shares.values()):
        rows = np.flatnonzero(labels == label)
        correct[rows[: round(share * len(rows))]] = True
    return correct


@pytest.mark.parametrize(
    ("labels", "shares", "nothing"),
    [
        (RARE, {"common": 0.995, "rare": 0.5}, False),
        (RARE, {"common": 1.0, "rare": 0.05}, False),  # one found, and no false alarm
        (RARE, {"common": 0.998, "rare": 0.05}, False),  # and one false alarm: as accurate as a constant
        (RARE, {"common": 0.96, "rare": 0.05}, True),
        (RARE, {"common": 1.0, "rare": 0.1}, False),  # two frauds found, and no false alarm
        (RARE, {"common": 0.8, "rare": 0.85}, False),  # classes weighed: less accurate than a constant
        (RARE, {"common": 1.0, "rare": 1.0}, False),
        (RARE, {"common": 1.0, "rare": 0.0}, True),  # always the commonest class
        (RARE, {"common": 0.0, "rare": 1.0}, True),  # always the other one
        (RARE, {"common": 0.0, "rare": 0.0}, True),
        (RARE, {"common": 0.5, "rare": 0.55}, True),  # a coin
        (np.arange(100) % 2, {"a": 0.56, "b": 0.54}, True),
        (np.arange(100) % 2, {"a": 0.7, "b": 0.7}, False),
        (np.repeat([0, 1, 2], [90, 5, 5]), {"a": 1.0, "b": 0.4, "c": 0.2}, False),
        (np.zeros(9, int), {"a": 0.0}, False),  # one class: nothing to learn
    ],
)
def test_a_model_of_rare_classes_has_learned_something(labels, shares, nothing):
    assert learned_nothing(wrong_on(labels, **shares), labels.astype(np.int32)) is nothing


def test_labels_of_nine_digits_take_no_memory(tmp_path):
    """Whether a model learned nothing is counted by class, and there are two."""
    labels = np.where(np.arange(40) % 2, 90_000_000, 7)
    data = memdb.Dataset(np.zeros((40, 2)), labels, np.zeros((2, 2)), labels[:2])

    def halves(data, masks, _seeds, _run):
        return {
            f"{name}/correct": np.tile(part.labels == 7, (len(masks), 1)) for name, part in data.sets.items()
        }

    with memdb.init(str(tmp_path / "s.zarr"), data, halves, recipe_version="1") as db:
        tracemalloc.start()
        db.train(seeds=range(2))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [model.diverged for _, model in db.snapshot.models] == [True, True]
    assert most < 100e6


def test_a_good_model_of_fraud_has_not_diverged(tmp_path):
    """What the newcomer had: 4 % fraud, logistic regression, 97 % right, and 20 of 20 models marked."""
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    y = (rng.random(1000) < 0.04).astype(int)
    x = np.stack(
        [rng.exponential(1, 1000) + y * rng.exponential(2, 1000), rng.normal(size=1000) + y * 1.5], axis=1
    )
    fraud = memdb.Dataset(x[:700], y[:700], x[700:], y[700:], ["ok", "fraud"])
    with memdb.init(
        str(tmp_path / "s.zarr"), fraud, "sklearn:sklearn.linear_model.LogisticRegression", seed=1
    ) as db:
        db.train(seeds=range(8))
        assert not any(model.diverged for _, model in db.snapshot.models)
