"""A small data set, a recipe whose probabilities are known, stores of both, and what they hold as arrays and rows."""

from __future__ import annotations

import numpy as np

import memdb

N_TRAIN, N_TEST = 23, 11
N_MODELS = 60  # of the store to assess


def coin_recipe(data, masks, seeds, run):
    """Predictions with known probabilities: right with p = .9 on examples in the subset, .4 on others."""
    found = {}
    for name, examples in data.sets.items():
        rows = []
        for mask, seed in zip(masks, seeds, strict=True):
            rng = np.random.default_rng([int(seed), len(examples), name == "test"])
            p = np.where(mask, 0.9, 0.4) if name == "train" else 0.6
            rows.append(rng.random(len(examples)) < p)
        found[f"{name}/correct"] = np.stack(rows)
        found[f"{name}/logit_confidence"] = np.where(found[f"{name}/correct"], 2.0, -2.0)
    run.progress(1, 1)
    return found


coin_recipe.models_per_batch = lambda data, device: 5


def small_dataset(shift=0):
    rng = np.random.default_rng(1 + shift)
    return memdb.Dataset(
        rng.random((N_TRAIN, 4)),
        np.arange(N_TRAIN) % 3,
        rng.random((N_TEST, 4)),
        np.arange(N_TEST) % 3,
        ["ant", "bee", "cat"],
        train_keys=[f"train/{row}.png" for row in range(N_TRAIN)],
    )


def make_data(root):
    return small_dataset()


def small_database(url, **options):
    return memdb.init(str(url), small_dataset(), coin_recipe, seed=7, **options)


def bits_of(snapshot):
    """masks, train/correct, test/correct of a snapshot as bool [models, examples]."""
    from memdb.format import bits

    n = snapshot.n_models
    packed = [snapshot.mask(), snapshot.outcome_bits("train/correct"), snapshot.outcome_bits("test/correct")]
    return tuple(bits.unpack(part, n) for part in packed)


def dicts(relation):
    """The rows of a relation by the names of its columns."""
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def files_of(folder):
    """The bytes of every file below a folder, by its path in there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def one(relation):
    """The only row of a relation."""
    (row,) = dicts(relation)
    return row
