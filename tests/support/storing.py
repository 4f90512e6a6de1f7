"""What tests of the store share: batches whose content is a function of their seeds, and failing storages."""

from __future__ import annotations

import numpy as np

from memdb.errors import StorageError
from memdb.format import subsets
from memdb.format.documents import plain_document, sealed
from memdb.format.segment import ModelInfo
from support.stores import bits_of


def accuracy(correct, chosen=None):
    values = correct if chosen is None else correct[chosen]
    return float(values.mean()) if len(values) else 0.0


def batch(store, seeds, salt=0):
    """A batch to commit whose content is a function of the seeds."""
    models, masks, trains, tests = [], [], [], []
    sizes = [info.n_examples for info in store.manifest.sets]
    for seed in seeds:
        rng = np.random.default_rng([seed, salt])
        mask = rng.random(sizes[0]) < 0.7
        train, test = (rng.random(size) < 0.6 for size in sizes)
        models.append(model(store, seed, mask, train, test))
        masks.append(mask)
        trains.append(train)
        tests.append(test)
    return models, np.stack(masks), {"train/correct": np.stack(trains), "test/correct": np.stack(tests)}


def model(store, seed, mask, train, test):
    return ModelInfo(
        model_id=subsets.model_id(store.manifest.seed, seed), seed=seed, subset_size=int(mask.sum()), seconds=0.5,
        trained_at="2026-01-01T00:00:00+00:00", train_accuracy=accuracy(train, mask),
        out_accuracy=accuracy(train, ~mask), test_accuracy=accuracy(test), diverged=False, device="cpu",
        host="here", versions={"memdb": "0"},
    )  # fmt: skip


def contents(snapshot):
    """Every model of a snapshot by id: its mask and outcomes as lists."""
    masks, train, test = bits_of(snapshot)
    return {
        info.model_id: [masks[row].tolist(), train[row].tolist(), test[row].tolist()]
        for row, (_, info) in enumerate(snapshot.models)
    }


def contents_of(part):
    """The same for a batch."""
    infos, masks, outcomes = part
    return {
        info.model_id: [
            masks[row].tolist(), outcomes["train/correct"][row].tolist(), outcomes["test/correct"][row].tolist()
        ]
        for row, info in enumerate(infos)
    }  # fmt: skip


class FailingStorage:
    """A storage that fails at its n-th operation and at every one after it, as a process that died."""

    OPERATIONS = ("read", "names", "find", "create", "remove", "write_all")

    def __init__(self, inner, allowed, *, operations=("create", "write_all", "remove"), lasting=False):
        self.inner, self.allowed, self.operations, self.lasting = inner, allowed, operations, lasting
        self.url, self.cache, self.can_list = inner.url, inner.cache, inner.can_list
        self.done = []

    def direct(self):
        return self

    def read(self, path, start=None, stop=None, **bound):
        self.spend("read", path)
        return self.inner.read(path, start, stop, **bound)

    def above(self):
        return self.inner.above()

    def names(self, folder):
        self.spend("names", folder)
        return self.inner.names(folder)

    def find(self, folder):
        self.spend("find", folder)
        return self.inner.find(folder)

    def create(self, path, data):
        self.spend("create", path)
        self.inner.create(path, data)

    def remove(self, paths):
        for path in paths:
            self.spend("remove", path)
            self.inner.remove([path])

    def write_all(self, objects):
        for path, data in objects.items():
            self.spend("write_all", path)
            self.inner.write_all({path: data})

    def spend(self, operation, path):
        if operation not in self.operations:
            return
        self.done.append((operation, path))
        if self.allowed <= 0 and (self.lasting or self.allowed == 0):
            self.allowed -= 1
            raise StorageError(f"cannot {operation} {path}: injected")
        self.allowed -= 1


def resealed(document):
    """Return the bytes of a document that was changed and sealed again."""
    return plain_document(sealed(document))


def forget(url="memory://"):
    """Remove what is in memory below a URL: each listing of a folder there looks at every object of the process."""
    from fsspec.implementations.memory import MemoryFileSystem

    start = "/" + url.removeprefix("memory://")
    for path in [path for path in MemoryFileSystem.store if path.startswith(start)]:
        del MemoryFileSystem.store[path]
