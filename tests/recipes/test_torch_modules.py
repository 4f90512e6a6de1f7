"""A recipe of `make_model` and a training function."""

import copy
import functools
import pickle

import numpy as np
import pytest

import memdb.recipes
from memdb.errors import InvalidInputError
from memdb.format.manifest import RecipeInfo
from memdb.recipes.torch_modules import FORMER_NAME, TorchRecipe


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


def make(width, depth=1):
    import torch

    return torch.nn.Linear(width, depth)


MAKERS = {
    make: "make",
    functools.partial(make, 8, depth=2): "make(8, depth=2)",
    functools.partial(make, fit): f"make({__name__}:fit)",
    functools.partial(make, np.int64(8)): "make(8)",
    functools.partial(
        make, {"of": (fit, np.float32(0.5)), "as": "x"}
    ): f'make({{"as":"x","of":[{__name__}:fit,0.5]}})',
    fit: "fit",
    copy.deepcopy: "copy:deepcopy",
}


def test_networks_of_one_version_are_told_apart_by_what_makes_and_trains_them():
    """All had the name of a function in memdb: stores of different networks merged."""
    names = [memdb.recipes.bind(TorchRecipe(maker, fit, "1", 10)).info.name for maker in MAKERS]
    assert names == [f"{__name__}:fit<{name}>" for name in MAKERS.values()]


def test_workers_can_be_sent_it():
    recipe = memdb.torch_recipe(functools.partial(make, 8), fit, version="1", models_per_batch=3)
    again = pickle.loads(pickle.dumps(recipe))  # noqa: S301 - our own
    assert memdb.recipes.bind(again).info == memdb.recipes.bind(recipe).info
    assert again.models_per_batch(None, "cpu") == 3


@pytest.mark.parametrize("former", [FORMER_NAME, "mine:recipe"])
def test_stores_made_under_a_former_name_go_on(former):
    recipe = memdb.torch_recipe(functools.partial(make, 8), fit, version="1")
    wanted = RecipeInfo(former, "1", {})
    bound = memdb.recipes.bind(recipe, import_path="mine:recipe", wanted=wanted.fingerprint)
    assert bound.info.name == former
    other = RecipeInfo(former, "2", {})
    assert memdb.recipes.bind(recipe, wanted=other.fingerprint).info.name.startswith(f"{__name__}:fit<")


def test_its_source_is_that_of_the_functions():
    one, same, other = (
        memdb.recipes.bind(memdb.torch_recipe(maker, fit, version="1"))
        for maker in (functools.partial(make, 8), functools.partial(make, 9), lambda: make(8))
    )
    assert one.source == same.source != other.source
    assert "has changed" in other.change_since([one.source])
