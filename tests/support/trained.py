"""Stores to train in, and the models that were."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import memdb
from memdb.format import subsets
from support.stores import coin_recipe, small_dataset


def dying_recipe(data, masks, seeds, run):
    """As coins fall; the first time that it sees seed 3 its process is killed, in the middle of its batch."""
    marker = Path(os.environ["DYING"])
    if 3 in seeds and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return coin_recipe(data, masks, seeds, run)


def stored(db):
    """The ids of all models in the store, each as often as it was committed."""
    return sorted(model.model_id for part in db.store.snapshot().segments for model in part.models)


def ids(seeds):
    return sorted(subsets.model_id(7, seed) for seed in seeds)


def made(tmp_path, recipe):
    return memdb.init(str(tmp_path / "w.zarr"), small_dataset(), recipe, seed=7)
