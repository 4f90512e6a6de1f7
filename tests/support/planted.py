"""A learner whose every score is known: 1-nearest-neighbour on clusters of identical points.

Each cluster has a label of its own and one copy in the test set. A model is right on a point if and only if a copy
of it is in the subset: memorization falls with the number of copies, by arithmetic.
"""

from __future__ import annotations

import math

import numpy as np

import memdb

COPIES = np.repeat([1, 2, 3, 4], [60, 40, 12, 6])  # [clusters]
CLUSTER = np.repeat(np.arange(len(COPIES)), COPIES)  # [train]: the label, too
N_TRAIN, N_IN_SUBSET = 200, 140


def clusters(_root=None):
    """Return 200 points to train on and a copy of each of the 118 different ones to test."""
    corners = np.random.default_rng(0).normal(size=(len(COPIES), 5))
    return memdb.Dataset(corners[CLUSTER], CLUSTER, corners, np.arange(len(COPIES)))


class NearestNeighbour:
    """1-nearest-neighbour; a share ``flips`` of its outcomes is turned around afterwards."""

    version = "1"

    def __init__(self, flips=0.0):
        self.options = {"flips": flips}

    def models_per_batch(self, data, device):
        return 50

    def __call__(self, data, masks, seeds, run):
        points, labels = data.train.array, data.train.labels
        found = {}
        for name, examples in data.sets.items():
            distance = ((examples.array[:, None] - points) ** 2).sum(axis=2)  # [examples, train]
            rows = []
            for mask, seed in zip(masks, seeds, strict=True):
                nearest = np.where(mask, distance, np.inf).argmin(axis=1)
                chance = np.random.default_rng([int(seed), name == "test"]).random(len(examples))
                rows.append((labels[nearest] == examples.labels) ^ (chance < self.options["flips"]))
            found[f"{name}/correct"] = np.stack(rows)
        return found


def truth(copies, *, own):
    """Return the exact influence of a training point on a cluster of this size: its own, or another."""
    outside = math.comb(N_TRAIN - copies, N_IN_SUBSET) / math.comb(N_TRAIN - 1, N_IN_SUBSET)
    if own:
        return outside
    absent_out = math.comb(N_TRAIN - 1 - copies, N_IN_SUBSET)
    absent_in = math.comb(N_TRAIN - 1 - copies, N_IN_SUBSET - 1)
    return absent_out / math.comb(N_TRAIN - 1, N_IN_SUBSET) - absent_in / math.comb(
        N_TRAIN - 1, N_IN_SUBSET - 1
    )
