"""A base and a store that extends it, against two dicts: whatever is done to either, in whatever order."""

from __future__ import annotations

import uuid
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.cases import examples_of
from support.stores import coin_recipe, small_dataset
from support.storing import batch, contents, contents_of, forget

import memdb

CODE = {"dataset": small_dataset(), "recipe": coin_recipe}
SIDES = st.sampled_from(["base", "own"])


class ExtensionMachine(RuleBasedStateMachine):
    """Commits, compactions, cleanings and retractions on both sides, updates, and merges of the whole."""

    @initialize()
    def create(self):
        place = f"memory://{uuid.uuid4().hex}"
        base = memdb.init(f"{place}/base.zarr", **CODE, seed=1, outcomes=["correct"])
        first = batch(base.store, [5])
        base.store.commit(*first)
        base.compact()
        own = memdb.extend(f"{place}/own.zarr", base.url, **CODE, seed=2)
        self.place, self.stores = place, {"base": base, "own": own}
        self.models = {"base": contents_of(first), "own": {}}
        self.retracted = {"base": set(), "own": set()}
        self.numbered = self.taken = (contents_of(first), set())
        self.number, self.past = 1, {}

    def teardown(self):
        forget(self.place)

    @rule(
        side=SIDES,
        seeds=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
        shared=st.booleans(),
    )
    def commit(self, side, seeds, shared):
        """Shared models are those of both: of the base's seed, wherever they are committed."""
        store = self.stores["base" if shared else side].store
        part = batch(store, [seed + 10 * (not shared and side == "own") for seed in seeds])
        self.stores[side].store.commit(*part)
        self.models[side] = contents_of(part) | self.models[side]

    @rule(side=SIDES)
    def compact(self, side):
        done = self.stores[side].compact()
        if side == "base":
            if done:
                self.numbered = (dict(self.models["base"]), set(self.retracted["base"]))
        elif done:
            self.past[done.record.number] = dict(self.counted())

    @rule(side=SIDES)
    def clean(self, side):
        self.stores[side].gc(grace=timedelta(0), alone=True)

    @rule(side=SIDES, data=st.data())
    @precondition(lambda self: any(self.models.values()))
    def retract(self, side, data):
        left = sorted(self.models[side].keys() - self.retracted[side])
        if left:
            model = data.draw(st.sampled_from(left))
            self.stores[side].retract([model], "a reason")
            self.retracted[side].add(model)

    @rule()
    def update(self):
        moved = self.stores["own"].update()
        before, self.number = self.number, self.stores["own"].store.base.snapshot
        assert (moved is not None) == (self.number > before)
        self.taken = self.numbered

    @rule()
    def merge(self):
        flat = memdb.merge(f"{self.place}/{uuid.uuid4().hex}.zarr", [self.stores["own"]], **CODE).database
        assert contents(flat.snapshot) == self.counted()

    @rule()
    def ask_again(self):
        for number, expected in self.past.items():
            with memdb.open(self.stores["own"].url, as_of=number) as old:
                assert contents(old.snapshot) == expected

    def counted(self):
        models, gone = self.taken
        gone = gone | self.retracted["own"]
        return {name: content for name, content in (self.models["own"] | models).items() if name not in gone}

    @invariant()
    def both_are_seen_as_one(self):
        self.stores["own"].refresh()
        snapshot = self.stores["own"].snapshot
        assert contents(snapshot) == self.counted()
        assert snapshot.n_models == len(self.counted())


TestExtension = ExtensionMachine.TestCase
TestExtension.settings = settings(
    max_examples=examples_of(20), stateful_step_count=12, suppress_health_check=list(HealthCheck)
)
