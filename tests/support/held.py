"""Runs and scores as people hold them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from support.stores import N_TEST, N_TRAIN

N = 12  # models
RNG = np.random.default_rng(0)
MASK = np.stack([np.isin(np.arange(N_TRAIN), RNG.choice(N_TRAIN, 16, replace=False)) for _ in range(N)])
RIGHT = {"train": RNG.random((N, N_TRAIN)) < 0.8, "test": RNG.random((N, N_TEST)) < 0.7}
LABELS = {"train": np.arange(N_TRAIN) % 3, "test": np.arange(N_TEST) % 3}
PLAIN = {"mask": MASK, "train_correct": RIGHT["train"], "test_correct": RIGHT["test"]}
MEM = RNG.uniform(-0.2, 1, N_TRAIN)
INFL = RNG.uniform(-0.5, 0.5, (N_TEST, N_TRAIN))


def matrix_arrays():
    found = {"tr_mem": MEM, "tr_labels": LABELS["train"], "tt_labels": LABELS["test"]}
    for k in range(3):
        rows, columns = (np.flatnonzero(values == k) for values in LABELS.values())
        found |= {f"tr_classidx_{k}": rows, f"tt_classidx_{k}": columns}
        found[f"infl_matrix_class{k}"] = INFL[np.ix_(columns, rows)].T
    return found


def margins(folder):
    folder.mkdir()
    rng = np.random.default_rng(4)
    np.save(folder / "train_masks.npy", MASK)
    for name, n in (("train", N_TRAIN), ("test", N_TEST)):
        np.save(folder / f"{name}_margins.npy", rng.normal(1, 1, (N, n)).astype("f2"))


def shards(folder, *, one_model=False, floats=False):
    kind = "f4" if floats else bool
    names = {
        "trainset_mask": MASK,
        "trainset_correctness": RIGHT["train"],
        "testset_correctness": RIGHT["test"],
    }
    parts = range(N) if one_model else (slice(0, 5), slice(5, N))
    for place, part in enumerate(parts):
        np.savez(folder / f"shard_{place}.npz", **{n: v[part].astype(kind) for n, v in names.items()})


def csv(columns, name="scores.csv"):
    return lambda folder: pa_csv.write_csv(pa.table(columns), folder / name)
