"""A store with planted influences and sketches that know of them, and its parts as arrays."""

from __future__ import annotations

import numpy as np

import memdb
from memdb.format.sketches import Projection
from memdb.store.read_sketches import sketch_arrays
from support.storing import model

N_TRAIN, N_TEST, SIZE, FRACTION = 120, 30, 32, 0.7


def planted(seed=0, effect=0.35):
    """Effects [train, test] of four training examples on each test example; the last two feel none."""
    rng = np.random.default_rng(seed)
    effects = np.zeros((N_TRAIN, N_TEST))
    for z in range(N_TEST - 2):
        effects[rng.choice(N_TRAIN, 4, replace=False), z] = [effect, effect / 2, effect / 2, -effect / 2]
    return effects


def outcomes_of(effects, n_models, seed=0):
    """Masks, correctness and logit confidences of models whose chances the effects move."""
    rng = np.random.default_rng([seed, 1])
    masks = rng.random((n_models, N_TRAIN)).argsort(axis=1) < FRACTION * N_TRAIN
    chances = {
        "train": np.where(masks, 0.95, 0.6),
        "test": np.clip(0.5 + (masks - FRACTION) @ effects, 0.02, 0.98),
    }
    chances["test"][:, -1] = 1.0  # all models get the last one right
    found = {}
    for name, p in chances.items():
        right = rng.random(p.shape) < p
        found[f"{name}/correct"] = right
        found[f"{name}/logit_confidence"] = np.where(right, 1, -1) * rng.exponential(size=p.shape)
    return masks, found


def sketches_of(effects, n_sketched, seed=0):
    """Sketches by set, [models, examples, size]: training examples point to what they influence."""
    rng = np.random.default_rng([seed, 2])
    test = rng.normal(size=(N_TEST, SIZE))
    train = 0.5 * rng.normal(size=(N_TRAIN, SIZE)) + 4 * effects @ test
    return {
        name: np.stack(
            [values + 0.3 * rng.normal(size=values.shape) for _ in range(n_sketched)]
        ).astype(np.float16)
        for name, values in {"train": train, "test": test}.items()
    }  # fmt: skip


def fill(db, effects, n_models, n_sketched, seed=0, in_all=(), projection=None, spoilt=None):
    """Commit models, of which the first ones have sketches, perhaps by another projection or one number spoilt.

    Some examples may be in all their subsets.
    """
    masks, outcomes = outcomes_of(effects, n_models, seed)
    masks[:, list(in_all)] = True
    outcomes = {path: values for path, values in outcomes.items() if path in db.store.manifest.arrays()}
    infos = [
        model(
            db.store, row + 1000 * seed, mask, outcomes["train/correct"][row], outcomes["test/correct"][row]
        )
        for row, mask in enumerate(masks)
    ]
    arrays = None
    if n_sketched:
        sketches = sketches_of(effects, n_sketched, seed)
        if spoilt is not None:
            sketches["train"][0, 3, 2] = spoilt
        arrays = sketch_arrays(projection or Projection(SIZE, 0), sketches, range(n_sketched))
    db.store.commit(infos, masks, outcomes, sketches=arrays)
    db.refresh()
    return db


def recipe(*_):
    raise NotImplementedError


def new_store(url, outcomes=("correct", "logit_confidence")):
    rows = [np.arange(n)[:, None] for n in (N_TRAIN, N_TEST)]
    data = memdb.Dataset(rows[0], np.arange(N_TRAIN) % 3, rows[1], np.arange(N_TEST) % 3)
    return memdb.init(str(url), data, recipe, recipe_version="0", outcomes=outcomes, seed=0)
