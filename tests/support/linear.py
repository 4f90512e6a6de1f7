"""A store whose outcomes are known to be linear in the masks, up to noise, and whose sketches say how."""

from __future__ import annotations

import numpy as np

import memdb

N_TRAIN, N_TEST, N_MODELS, SIZE = 60, 24, 320, 8
FRACTION, SHARE = 0.7, 0.4


def effects():
    """What each training example does to the logit of each test example, [train, test]; h^2 is `SHARE`."""
    train, test = features()
    found = train @ test.T
    found -= found.mean(axis=0)
    variance = FRACTION * (1 - FRACTION) * N_TRAIN / (N_TRAIN - 1) * (found**2).sum(axis=0)
    return found * np.sqrt(SHARE / variance)


def features():
    random = np.random.default_rng(3)
    return random.normal(size=(N_TRAIN, SIZE)) ** 3, random.normal(size=(N_TEST, SIZE))


class Linear:
    """Draws logits: the sum of the effects of the subset, and noise. Sketches are the features, scaled."""

    name, version, options = "linear", "1", {}

    def models_per_batch(self, data, device):
        return 160

    def __call__(self, data, masks, seeds, run):
        noise = np.random.default_rng(seeds).normal(size=(len(seeds), N_TRAIN + N_TEST))
        test = (masks - FRACTION) @ effects() + np.sqrt(1 - SHARE) * noise[:, :N_TEST]
        train = np.where(masks, 1.0, 0.0) + noise[:, N_TEST:]
        found = {}
        for name, values, x in zip(("train", "test"), (train, test), features(), strict=True):
            found |= {f"{name}/correct": values > 0, f"{name}/logit_confidence": values}
            if run.sketch:
                sketched = min(len(seeds), run.sketch.n_models)
                found[f"{name}/gradient_sketch"] = np.tile(x, (sketched, 1, 1))
        return found


def linear_database(url, n_models=N_MODELS, **options):
    data = memdb.Dataset(
        np.zeros((N_TRAIN, 1)), np.arange(N_TRAIN) % 2, np.zeros((N_TEST, 1)), np.arange(N_TEST) % 2
    )
    db = memdb.init(str(url), data, Linear(), subset_fraction=FRACTION, seed=5, **options)
    db.train(seeds=range(n_models), device="cpu")
    return db
