"""The store against a dict of models: whatever is done to it, in whatever order, on every kind of storage."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.cases import examples_of
from support.stores import coin_recipe, small_dataset
from support.storing import FailingStorage, batch, contents, contents_of, forget

import memdb
from memdb.errors import StorageError
from memdb.storage import open_storage
from memdb.store import Store
from memdb.store.maintenance import compact, retract, verify
from memdb.store.maintenance import gc as cleaning_up

SEEDS = st.integers(0, 12)
NOW = timedelta(0)


class StoreMachine(RuleBasedStateMachine):
    """Commits, repeats, crashes, compactions, cleanings, retractions, judged by a dict of models."""

    place = staticmethod(lambda folder: (str(Path(folder) / "s.zarr"), {}))

    @initialize(block_models=st.sampled_from([3, 8, 1024]))
    def create(self, block_models):
        self.folder = tempfile.mkdtemp()
        self.usual = compact.BLOCK_MODELS
        compact.BLOCK_MODELS = block_models
        url, options = self.place(self.folder)
        made = memdb.init(
            url, small_dataset(), coin_recipe, seed=7, outcomes=["correct"], storage_options=options
        )
        self.store, self.url, self.options = made.store, url, options
        self.models, self.retracted, self.snapshots = {}, set(), {}
        self.n_committed = 0

    def teardown(self):
        compact.BLOCK_MODELS = self.usual
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.url.startswith("memory:"):
            forget(self.url)

    def record(self, part):
        for identifier, content in contents_of(part).items():
            self.models.setdefault(identifier, content)
        self.n_committed += len(part[0])

    @property
    def counted(self):
        return {name: content for name, content in self.models.items() if name not in self.retracted}

    def failing(self, allowed):
        return replace(self.store, storage=FailingStorage(self.store.storage, allowed, lasting=True))

    @rule(seeds=st.lists(SEEDS, min_size=1, max_size=10, unique=True), salt=st.integers(0, 2))
    def commit(self, seeds, salt):
        part = batch(self.store, seeds, salt)
        self.store.commit(*part)
        self.record(part)

    @rule(seed=SEEDS, allowed=st.integers(0, 12))
    def crash_in_commit(self, seed, allowed):
        part = batch(self.store, [seed, seed + 100], salt=3)
        try:
            self.failing(allowed).commit(*part)
        except StorageError:
            return
        self.record(part)

    @rule(thorough=st.booleans())
    def compact(self, thorough):
        done = compact.compact(self.store, thorough=thorough)
        self.note(done)

    @rule(allowed=st.integers(0, 25))
    def crash_in_compact(self, allowed):
        try:
            done = compact.compact(self.failing(allowed))
        except StorageError:
            return
        self.note(done)

    def note(self, done):
        if done:
            self.snapshots[done.record.number] = dict(self.counted)
            assert all(block.n_models <= compact.BLOCK_MODELS for block in done.record.blocks)

    @rule()
    def clean(self):
        list(self.cleaned(self.store))

    @rule(allowed=st.integers(0, 20))
    def crash_in_clean(self, allowed):
        try:
            list(self.cleaned(self.failing(allowed)))
        except StorageError:
            return

    def cleaned(self, store):
        doomed = cleaning_up.garbage(store, NOW, alone=True)
        return cleaning_up.remove(store, doomed)

    @precondition(lambda self: len(self.counted) > 1)
    @rule(data=st.data())
    def retract(self, data):
        identifier = data.draw(st.sampled_from(sorted(self.counted)))
        retract.retract(self.store, [identifier], "a reason")
        self.retracted.add(identifier)

    @rule()
    def reopen(self):
        self.store = Store.open(open_storage(self.url, self.options))

    @rule()
    def verify(self):
        report = verify.verify(self.store)
        assert report.damages == []
        assert report.models == set(self.models)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def ask_as_of(self, data):
        number = data.draw(st.sampled_from(sorted(self.snapshots)))
        assert contents(self.store.snapshot(number)) == self.snapshots[number]

    @invariant()
    def every_model_is_read_back_exactly_once(self):
        snapshot = self.store.snapshot()
        assert contents(snapshot) == self.counted
        assert snapshot.n_models == len(self.counted)
        assert snapshot.n_repeats == self.n_committed - len(self.models)


def quickly(n_examples, n_steps):
    return settings(
        max_examples=n_examples, stateful_step_count=n_steps, suppress_health_check=list(HealthCheck)
    )


class InMemory(StoreMachine):
    place = staticmethod(lambda _: (f"memory://{uuid.uuid4().hex}/s.zarr", {}))


TestOnDisk = StoreMachine.TestCase
TestOnDisk.settings = quickly(examples_of(30), 10)
TestInMemory = InMemory.TestCase
TestInMemory.settings = quickly(examples_of(30), 15)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["disk", "memory", "s3"])
def test_for_longer(kind, request):
    from hypothesis.stateful import run_state_machine_as_test

    options = request.getfixturevalue("s3") if kind == "s3" else {}
    bases = {"disk": StoreMachine, "memory": InMemory, "s3": StoreMachine}

    class Longer(bases[kind]):
        if kind == "s3":
            place = staticmethod(lambda _: (f"s3://bucket/{uuid.uuid4().hex}/s.zarr", options))

    n_examples = {"disk": 60, "memory": 150, "s3": 20}[kind]
    run_state_machine_as_test(Longer, settings=quickly(n_examples, 25))
