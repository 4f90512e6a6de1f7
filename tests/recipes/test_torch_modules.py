"""A recipe of `make_model` and a training function."""

import copy
import functools

import numpy as np
import pytest

import memdb
from memdb.errors import InvalidInputError


def fit(model, subset, device):
    import torch

    pictures, labels = subset.tensors
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(pictures.to(device)), labels.to(device)).backward()
        optimizer.step()


def test_it_trains_on_the_subset_alone_and_the_same_again(tmp_path):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    pictures = (np.eye(3)[labels] + rng.normal(0, 0.3, (30, 3))).astype(np.float32)
    sizes = []

    def train(model, subset, device):
        sizes.append(len(subset))
        fit(model, subset, device)

    recipe = memdb.torch_recipe(lambda: torch.nn.Linear(3, 3), train, version="1", models_per_batch=2)
    data = memdb.Dataset(pictures[:20], labels[:20], pictures[20:], labels[20:])
    outcomes = []
    for name in ("a", "b"):
        with memdb.init(str(tmp_path / f"{name}.zarr"), data, recipe, seed=1) as db:
            assert db.train(seeds=[1, 2, 3]) == 3
            outcomes.append(db.snapshot.outcome_values("test/logit_confidence"))
            assert db.info().project("test_accuracy").fetchall()[0][0] > 0.8
    assert sizes == [14] * 6
    assert np.array_equal(*outcomes)


def test_functions_that_are_called_otherwise_are_refused_at_once():
    for make_model, train in (
        (lambda: None, lambda model, subset: None),
        (lambda x: None, lambda m, s, d: None),
    ):
        with pytest.raises(InvalidInputError, match=r"is called with \((model, subset, device)?\)"):
            memdb.torch_recipe(make_model, train, version="1")
    memdb.torch_recipe(functools.partial(copy.deepcopy, {}), fit, version="1")
