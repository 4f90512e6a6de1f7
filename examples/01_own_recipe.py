"""A recipe of your own, in any framework: here scikit-learn's decision trees, as a plain function.

From the command line, in the folder of a file `trees.py` with this function in it:

    memdb init --store trees.zarr --recipe trees:train_trees
    memdb train --store trees.zarr --add 50
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier

import memdb


def train_trees(
    data: memdb.Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: memdb.Run
) -> dict[str, NDArray[np.bool_]]:
    """Train one tree a mask; return what each gets right, bool [models, examples]."""
    flat = {name: examples.array.reshape(len(examples), -1) for name, examples in data.sets.items()}
    correct: dict[str, list[NDArray[np.bool_]]] = {f"{name}/correct": [] for name in flat}
    for mask, seed in zip(masks, seeds, strict=True):
        tree = DecisionTreeClassifier(random_state=int(seed % 2**32))
        tree.fit(flat["train"][mask], data.train.labels[mask])
        for name, examples in data.sets.items():
            correct[f"{name}/correct"].append(tree.predict(flat[name]) == examples.labels)
    return {path: np.stack(rows) for path, rows in correct.items()}


train_trees.version = "1"  # part of the recipe's identity: change it when the code changes its results
train_trees.models_per_batch = lambda data, device: 10  # models a commit

if __name__ == "__main__":
    n_models = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with (
        tempfile.TemporaryDirectory() as folder,
        memdb.init(f"{folder}/trees.zarr", dataset="digits", recipe=train_trees) as db,
    ):
        db.train(add=n_models)
        print(db.info().project("n_models, train_accuracy, out_accuracy, test_accuracy, mean_half_width"))
        print(db.top_memorized(k=5).project("train_id, label, memorization, lo, hi"))
