"""Whether joined stores answer as one that trained everything, and how long merging takes.

Two stores of models with planted influences, each with a seed of its own, and one store to which the same
models were committed. Then the first is extended by the models of the second, and both are merged, in
either order. Every row of `memorization` and of `influence` for some test examples is compared, bit for bit.

    python scripts/figures_join.py
    python scripts/figures_join.py --models 100 --train 2000 --test 400

Expect about four minutes on two quiet cores, and some 400 MB of disk.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from synthetic_store import Size, Truth, batch, draw_truth, labels_of, new_store

import memdb
from memdb.store import Store
from memdb.store.maintenance.compact import compact

SEEDS = {"a": 1, "b": 2}  # of the two stores
SHOWN_TESTS = 20


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=2000, help="in each of the two stores")
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=100)
    options = parser.parse_args()
    size = Size(options.models, options.train, options.test, options.classes)
    print(
        f"2 x {size.n_models:,} models, {size.n_train:,} + {size.n_test:,} examples; memdb {memdb.__version__}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), size)
    unit = 1 if sys.platform == "darwin" else 1024
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20:,.0f} MiB")
    return 0


def compare(folder: Path, size: Size) -> None:
    """Write the stores, join them and print what was found."""
    labels = labels_of(size, 0)
    truth = draw_truth(size, *labels, 0)
    one = new_store(str(folder / "one.zarr"), *labels, ["correct"], seed=0)
    stores = {
        name: new_store(str(folder / f"{name}.zarr"), *labels, ["correct"], seed=seed)
        for name, seed in SEEDS.items()
    }
    fill(stores["a"], [one], size, truth)
    compact(stores["a"])
    code = one.manifest.recipe.name
    extension = memdb.extend(str(folder / "extension.zarr"), stores["a"].url, recipe=code)
    fill(stores["b"], [one, extension.store], size, truth)
    for store in (stores["b"], one):
        compact(store)
    expected = rows(memdb.open(one.url))
    report("extended", rows(memdb.open(extension.url)), expected)
    for order in ("ab", "ba"):
        sources = [memdb.open(stores[name].url) for name in order]
        url = str(folder / f"{order}.zarr")
        act = partial(memdb.merge, url, sources, recipe=code)
        merged, seconds = timed(act)
        _, compacting = timed(merged.database.compact)
        print(f"merge {' '.join(order)}: {seconds:.1f} s, compaction of the result {compacting:.1f} s")
        report(f"merged {' '.join(order)}", rows(memdb.open(url)), expected)
        again, seconds = timed(act)
        print(f"merged again: {sum(again.added):,} models added, {seconds:.1f} s")


def fill(store: Store, others: list[Store], size: Size, truth: Truth) -> None:
    """Commit models to a store, and the very same to others."""
    for start in range(0, size.n_models, size.batch):
        seeds = range(start, min(size.n_models, start + size.batch))
        part = batch(store, size, truth, store.manifest.seed, seeds)
        for place in (store, *others):
            place.commit(*part)


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """Do something; return what it gave and the seconds it took."""
    started = time.perf_counter()
    return act(), time.perf_counter() - started


def rows(db: memdb.Database) -> list[pa.Table]:
    """Return all memorization scores, and all influences on some test examples spread over the set."""
    n_test = db.store.manifest.set_named("test").n_examples
    tests = np.unique(np.linspace(0, n_test - 1, SHOWN_TESTS).astype(int)).tolist()
    found = [
        db.sql("SELECT * FROM memorization ORDER BY train_id"),
        db.sql(f"SELECT * FROM influence_of({tests}) ORDER BY test_id, train_id"),  # noqa: S608 - numbers
    ]
    return [relation.to_arrow_table().combine_chunks() for relation in found]


def report(name: str, found: list[pa.Table], expected: list[pa.Table]) -> None:
    """Print how many rows of two answers are compared, and how many differ in any bit."""
    n_rows = sum(table.num_rows for table in expected)
    n_different = sum(
        int(np.any([differ(a.column(c), b.column(c)) for c in a.column_names], axis=0).sum())
        for a, b in zip(found, expected, strict=True)
    )
    print(f"{name}: {n_rows:,} rows compared, {n_different:,} differ", flush=True)


def differ(a: pa.ChunkedArray, b: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Tell row by row whether two columns differ; NULL equals NULL."""
    left, right = a.to_numpy(), b.to_numpy()
    if left.dtype.kind == "f":
        return np.asarray(left.view(np.int64) != right.view(np.int64))
    return np.asarray(left != right)


if __name__ == "__main__":
    sys.exit(main())
