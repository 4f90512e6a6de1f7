"""Two recipes that train differently have two fingerprints, or are refused: what newcomers wrote."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys

import numpy as np
import pytest
from support.stores import coin_recipe, small_dataset

import memdb
from memdb import recipes
from memdb.errors import InvalidInputError, MismatchError
from memdb.training.run import warn_of_doubts


def train(data, masks, seeds, run, acc=0.5, *, hidden=()):
    rng = np.random.default_rng(int(seeds[0]))
    return {f"{name}/correct": rng.random((len(masks), len(part))) < acc for name, part in data.sets.items()}


def before(lr, data, masks, seeds, run, **more):
    return {}


def two(data, masks):
    return {}


def made(acc):
    def inner(data, masks, seeds, run):
        return train(data, masks, seeds, run, acc=acc)

    return inner


def disguised(acc):
    """A closure that wears the name of a function of the module."""
    return functools.wraps(train)(made(acc))


class Bare:
    def __init__(self, acc=0.5):
        self.acc = acc

    def __call__(self, data, masks, seeds, run):
        return {}

    def method(self, data, masks, seeds, run):
        return {}

    @classmethod
    def of_class(cls, data, masks, seeds, run):
        return {}


class Stated(Bare):
    @property
    def options(self):
        return {"acc": self.acc}


FAST = functools.partial(train, acc=0.3)
NAMELESS = lambda data, masks, seeds, run: {}  # noqa: E731
BARE = Bare()


def info(recipe, **more):
    return recipes.bind(recipe, **more).info


@pytest.mark.parametrize(
    ("recipe", "name", "options"),
    [
        (functools.partial(train), "train", {}),
        (functools.partial(train, acc=0.3), "train", {"acc": 0.3}),
        (functools.partial(functools.partial(train, acc=0.3), hidden=(8, 4)), "train", {"acc": 0.3, "hidden": [8, 4]}),
        (functools.partial(functools.partial(train, acc=0.3), acc=0.4), "train", {"acc": 0.4}),
        (functools.partial(before, 0.1), "before", {"lr": 0.1}),
        (functools.partial(before, 0.1, width=3), "before", {"lr": 0.1, "width": 3}),
        (functools.partial(Stated, 0.7), "Stated", {"acc": 0.7}),
        (functools.partial(Stated(0.2)), "Stated", {"acc": 0.2}),
        (Stated, "Stated", {"acc": 0.5}),
        (Bare.of_class, "Bare.of_class", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_a_partial_fixes_is_part_of_the_name_and_the_options(recipe, name, options):
    found = info(recipe)
    assert (found.name, found.version, dict(found.options)) == (f"test_identity:{name}", "0", options)


def test_a_plain_function_is_known_by_what_it_always_was():
    """Golden: a store made before partials were unfolded goes on; the recipe's module was `conftest` then."""
    known = dataclasses.replace(info(coin_recipe), name="conftest:coin_recipe")
    assert known.fingerprint == "a64fe58e9df725ea86e111cb3de72dbe27c55f32eb7e22742bc5a764fb033962"
    assert info(functools.partial(coin_recipe)).fingerprint == info(coin_recipe).fingerprint
    assert (
        recipes.resolve("mlp", {}).info.fingerprint
        == "0852e15e0282740b0b1486c706de0c5928a8db7adc286cbfb97f113759289e86"
    )


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (lambda data, masks, seeds, run: {}, "<lambda> has no name that leads to it alone"),
        (functools.partial(lambda lr, data, masks, seeds, run: {}, 0.1), "<lambda> has no name"),
        (made(0.3), "made.<locals>.inner has no name"),
        (functools.partial(made(0.3)), "made.<locals>.inner has no name"),
        (disguised(0.3), "test_identity:train has no name that leads to it alone"),
        (Bare(), "test_identity:Bare has no `options`"),
        (functools.partial(Bare()), "test_identity:Bare has no `options`"),
        (Bare().method, "test_identity:Bare.method has no name"),
    ],
)
def test_what_has_no_name_of_its_own_needs_a_version_that_somebody_vouches_for(recipe, says):
    with pytest.raises(InvalidInputError, match=says) as caught:
        recipes.bind(recipe)
    assert 'recipe_version="1"' in caught.value.hint
    assert info(recipe, version="7").version == "7"


def test_a_version_on_the_function_itself_vouches_for_it_but_not_one_that_was_copied():
    recipe = made(0.3)
    recipe.version = "2"
    assert info(recipe).version == "2"
    with pytest.raises(InvalidInputError, match="no name"):
        recipes.bind(functools.wraps(recipe)(made(0.4)))


LOOPED = []
for share in (0.1, 0.3):

    def looped(data, masks, seeds, run, share=share):
        return {}

    LOOPED.append(looped)


def test_of_functions_of_one_name_only_the_one_that_it_leads_to_has_it():
    assert info(LOOPED[1]).name == "test_identity:looped"
    with pytest.raises(InvalidInputError, match="no name that leads to it alone"):
        info(LOOPED[0])


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (functools.partial(train, acc=np.float32(0.3)), r"argument acc of recipe test_identity:train is np.float32"),
        (functools.partial(train, acc=float("nan")), "argument acc of .* is nan"),
        (functools.partial(train, hidden={1, 2}), "argument hidden of"),
        (functools.partial(before, object()), "argument lr of recipe test_identity:before"),
        (functools.partial(before, 0.1, loss=print), "argument loss of .* is <built-in function print>"),
        (functools.partial(train, lr=0.1), "does not take the arguments of its partial.*'lr'"),
        (functools.partial(train, None), "a partial that fixes data, which memdb gives it"),
        (two, r"takes \(data, masks\), but is called with \(data, masks, seeds, run\)"),
        (functools.partial(two), r"takes \(data, masks\)"),
        (5, "recipe 5 is of type int, which cannot be called"),
        (None, "recipe None is of type NoneType"),
        ("mem", "unknown recipe 'mem'"),
        ("test_identity", "unknown recipe 'test_identity'"),
        ("test_identity:okk", "test_identity has no attribute 'okk'"),
        ("nosuch:thing", "'nosuch:thing' cannot be imported: ModuleNotFoundError"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused_before_a_store_is_made(tmp_path, recipe, says):
    with pytest.raises(InvalidInputError, match=says) as caught:
        memdb.init(str(tmp_path / "s.zarr"), small_dataset(), recipe)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_options_for_a_function_are_not_written_down_and_forgotten(tmp_path):
    with pytest.raises(InvalidInputError, match="train takes no options") as caught:
        memdb.init(str(tmp_path / "s.zarr"), small_dataset(), train, recipe_options={"acc": 0.3})
    assert "functools.partial(train, lr=0.1)" in caught.value.hint


def test_a_store_takes_models_of_one_partial_only(tmp_path):
    url = str(tmp_path / "s.zarr")
    with memdb.init(url, small_dataset(), functools.partial(train, acc=0.3)) as db:
        db.train(seeds=[1])
    with memdb.open(url) as db:
        with pytest.raises(MismatchError, match=r"\(acc=0.3\).*\(acc=0.95\)"):
            db.train(seeds=[2], dataset=small_dataset(), recipe=functools.partial(train, acc=0.95))
        assert db.train(seeds=[2], dataset=small_dataset()) == 1  # folded again from the store's options


@pytest.mark.parametrize("recipe", [functools.partial(before, 0.1, width=3), FAST, Stated(0.2)])
def test_a_recipe_is_bound_again_from_what_a_store_says_of_it(recipe):
    bound = recipes.bind(recipe)
    if isinstance(recipe, functools.partial):
        again = recipes.rebind(bound.info)
        assert again.info == bound.info
        assert (again.train.args, again.train.keywords) == (recipe.args, recipe.keywords)


def test_a_partial_by_import_path_is_the_function_with_its_options():
    found = recipes.resolve("test_identity:FAST", {}).info
    assert (found.name, found.options, found.import_path) == (
        "test_identity:train",
        {"acc": 0.3},
        "test_identity:FAST",
    )
    assert found.fingerprint == info(functools.partial(train, acc=0.3)).fingerprint
    assert recipes.rebind(found).info == found
    for path in ("test_identity:NAMELESS", "test_identity:BARE"):  # the path leads to them alone
        assert recipes.resolve(path, {}).info.name == path


def test_a_partial_trains_as_many_models_at_once_as_its_function():
    bound = recipes.bind(functools.partial(coin_recipe))
    assert bound.models_per_batch(small_dataset(), "cpu") == 5


def test_a_recipe_without_an_import_path_is_trained_from_python(tmp_path):
    url = str(tmp_path / "s.zarr")
    recipe = made(0.3)
    with memdb.init(url, small_dataset(), recipe, recipe_version="1") as db:
        assert db.train(seeds=[1]) == 1
    with memdb.open(url) as db:
        with pytest.raises(InvalidInputError, match="has no import path"):
            db.train(seeds=[2], dataset=small_dataset())
        with pytest.raises(InvalidInputError, match="was given without a recipe"):
            db.train(seeds=[2], dataset=small_dataset(), recipe_version="1")
        assert db.train(seeds=[2], dataset=small_dataset(), recipe=recipe, recipe_version="1") == 1


def test_a_source_that_changed_under_one_version_is_said_once(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "from support.stores import coin_recipe\ndef train(data, masks, seeds, run, share={}):\n    return coin_recipe(data, masks, seeds, run)\n"
    url, told = str(tmp_path / "s.zarr"), []

    def trained(share, seed, progress=told.append):
        (tmp_path / "edited.py").write_text(source.format(share))
        sys.modules.pop("edited", None)
        importlib.invalidate_caches()
        with memdb.open(url) as db:
            db.train(seeds=[seed], dataset=small_dataset(), progress=progress)

    (tmp_path / "edited.py").write_text(source.format(0.1))
    memdb.init(url, small_dataset(), "edited:train").close()
    trained(0.1, 1)
    trained(0.1, 2)
    assert {status.remark for status in told} == {""}
    with pytest.warns(UserWarning, match="the source of recipe edited:train has changed .* --recipe-version"):
        trained(0.25, 3, warn_of_doubts)
    told.clear()
    trained(0.25, 4)
    assert {status.remark for status in told} == {""}
    with memdb.open(url) as db:
        sources = {model.versions["recipe"] for _, model in db.snapshot.models}
        assert len(sources) == 2


def test_what_memdb_brings_has_no_source_to_change():
    assert recipes.resolve("mlp", {}).source is None
