"""What a question costs on S3: requests and bytes, before and after compaction, and asked again from the cache.

Makes a store of random outcomes behind an S3 server on loopback (moto), and counts what passes between.

    python scripts/figures_requests.py
    python scripts/figures_requests.py --segments 400 --models 10 --train 50000 --test 10000

A test holds a small store of these to the budget below.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from memdb.format import subsets
from memdb.format.segment import ModelInfo
from memdb.storage import Cache

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
QUESTIONS = {
    "info": lambda db: db.info(),
    "top-memorized": lambda db: db.top_memorized(),
    "top-influence --test-id 4": lambda db: db.top_influence(test_id=4),
    "top-influence --target-id 4": lambda db: db.top_influence(target_id=4),
    "score --train-id 7 --test-id 4": lambda db: db.score(7, test_id=4),
    "sql over memorization": lambda db: db.sql("SELECT avg(memorization) FROM memorization"),
}
BUDGET = {  # requests: listings, manifest, whether it is a copy (2), names, labels, snapshot; then for each segment or block
    "segments": (20, 4),  # its document, and an object each of mask, train/correct and test/correct
    "segments, cached": (7, 0),
    "blocks": (21, 5),  # two objects of counts instead of train/correct; more where the others are several
    "blocks, cached": (7, 0),
}


@dataclass(frozen=True)
class Cost:
    """Of one question: requests, and bytes received."""

    n_requests: int
    n_bytes: int


def measure(
    n_segments: int, n_models: int, n_train: int, n_test: int, questions: Iterable[str] = QUESTIONS
) -> tuple[dict[str, dict[str, Cost]], int]:
    """Return question -> state of the store -> cost, and the number of blocks."""
    found: dict[str, dict[str, Cost]] = {question: {} for question in questions}
    with served() as (proxy, options), tempfile.TemporaryDirectory() as folder:
        url = "s3://figures/store.zarr"
        fill(url, options, n_segments, n_models, n_train, n_test)
        for state in ("segments", "blocks"):
            if state == "blocks":
                memdb.open(url, storage_options=options, cache=None).compact()
            for position, question in enumerate(found):
                cache = Cache(Path(folder) / f"{state}-{position}")
                for round_, kept in ((state, None), ("", cache), (f"{state}, cached", cache)):
                    proxy.log.clear()
                    with memdb.open(url, storage_options=options, cache=kept) as db:
                        QUESTIONS[question](db).fetchall()
                    if round_:
                        n_bytes = sum(request.n_bytes for request in proxy.log)
                        found[question][round_] = Cost(len(proxy.log), n_bytes)
        blocks = len(memdb.open(url, storage_options=options, cache=None).snapshot.blocks)
    return found, blocks


@contextlib.contextmanager
def served() -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield a counting proxy before an S3 server, and the options that lead there."""
    import s3fs
    from moto.server import ThreadedMotoServer
    from support.fault_proxy import FaultProxy

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        with FaultProxy(*server.get_host_and_port()) as proxy:
            options = {"key": "k", "secret": "s", "endpoint_url": proxy.url}
            s3fs.S3FileSystem(**options).mkdir("figures")
            yield proxy, options
    finally:
        server.stop()


def fill(
    url: str, options: Mapping[str, Any], n_segments: int, n_models: int, n_train: int, n_test: int
) -> None:
    def untrained(*_: object) -> dict[str, object]:
        return {}

    labels = np.arange(n_train) % 10, np.arange(n_test) % 10
    data = memdb.Dataset(np.zeros((n_train, 1)), labels[0], np.zeros((n_test, 1)), labels[1])
    db = memdb.init(
        url, data, untrained, recipe_version="0", outcomes=["correct"], seed=1, storage_options=options
    )
    rng = np.random.default_rng(0)
    for segment in range(n_segments):
        seeds = range(segment * n_models, (segment + 1) * n_models)
        models = [
            ModelInfo(subsets.model_id(1, seed), seed, 0, 1.0, "", 0.5, 0.5, 0.5, False, "cpu", "here")
            for seed in seeds
        ]
        shapes = {"train/correct": n_train, "test/correct": n_test}
        outcomes = {path: rng.random((n_models, size)) < 0.7 for path, size in shapes.items()}
        db.store.commit(models, rng.random((n_models, n_train)) < 0.7, outcomes)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--segments", type=int, default=100)
    parser.add_argument("--models", type=int, default=10, help="in each segment")
    parser.add_argument("--train", type=int, default=5000)
    parser.add_argument("--test", type=int, default=1000)
    options = parser.parse_args()
    found, blocks = measure(options.segments, options.models, options.train, options.test)
    sizes = f"{options.train:,} training and {options.test:,} test examples"
    print(f"{options.segments * options.models:,} models, {sizes}; requests and kB received")
    states = list(next(iter(found.values())))
    print(f"{'':31}" + "".join(f"{state:>18}" for state in states))
    for question, costs in found.items():
        shown = (f"{cost.n_requests:>8} {cost.n_bytes / 1000:>9,.0f}" for cost in costs.values())
        print(f"{question:31}" + "".join(shown))
    print(f"({options.segments} segments; {blocks} block{'s' * (blocks != 1)} after compaction)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
