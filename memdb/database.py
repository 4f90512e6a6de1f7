"""The Python face: a store and its verbs, which are the command line's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from memdb import datasets, layout, recipes, subsets
from memdb.errors import InvalidInput
from memdb.query import questions
from memdb.query.connection import MAX_PAIRS, Relations
from memdb.query.questions import SIDES, IntervalChoice
from memdb.query.results import present
from memdb.store import (
    Snapshot,
    Store,
    cleaning,
    compaction,
    retraction,
    verification,
)
from memdb.store import repair as repairs
from memdb.store.timing import GRACE
from memdb.train import require_positive
from memdb.training import Plan, TrainingStatus, carry_out

if TYPE_CHECKING:
    from types import TracebackType

    from duckdb import DuckDBPyRelation

    from memdb.commits import Retraction
    from memdb.query.pair_scores import PairOptions
    from memdb.store.compaction import Compaction
    from memdb.store.repair import Repair
    from memdb.store.verification import Report

IN_MEMORY = "in-memory"


class Database:
    """A store and what one can ask of it. Answers are of the models that were there when it was opened.

    Every question returns a DuckDB relation whose rows are already computed: ``.df()``, ``.arrow()``,
    ``.pl()``, ``.fetchall()``. Scores come with an interval of the kind and level asked for and the counts
    behind it; they are NULL where an example was never in, or never out of, a subset.
    """

    def __init__(
        self,
        store: Store,
        dataset: datasets.Dataset | None = None,
        recipe: recipes.BoundRecipe | None = None,
        *,
        as_of: int | None = None,
    ) -> None:
        self.store = store
        self._as_of = as_of
        self._dataset = dataset
        self._recipe = recipe

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the store is."""
        return self.store.url

    @cached_property
    def snapshot(self) -> Snapshot:
        """The models that answers are of."""
        return self.store.snapshot(self._as_of)

    @cached_property
    def relations(self) -> Relations:
        """The snapshot as DuckDB relations."""
        return Relations(self.snapshot)

    @property
    def n_models(self) -> int:
        """How many models answers are of."""
        return self.snapshot.n_models

    @property
    def models_sha256(self) -> str:
        """Hash over the sorted ids of these models: equal hashes, equal answers."""
        return self.snapshot.models_sha256

    def refresh(self) -> None:
        """Take in the models that were committed since."""
        self.close()

    def close(self) -> None:
        """Close the DuckDB connection; the next question opens another."""
        if "relations" in self.__dict__:
            self.relations.close()
        self.__dict__.pop("relations", None)
        self.__dict__.pop("snapshot", None)

    def info(self, *, level: float = 0.95, interval: str = "anytime") -> DuckDBPyRelation:
        """Return one row about the store: data, recipe, models, accuracies, how tight its intervals are."""
        return present(questions.info(self.relations, IntervalChoice(interval, level)))

    def top_memorized(
        self, k: int = 20, *, class_name: str | None = None, level: float = 0.95, interval: str = "selected"
    ) -> DuckDBPyRelation:
        """Return the k most memorized training examples (Feldman and Zhang 2020, equation 1).

        Raises:
            NotEnoughModels: the store has no models yet.
            InvalidInput: a class, k, level or interval that cannot be.
        """
        choice = IntervalChoice(interval, level)
        return present(questions.top_memorized(self.relations, k, class_name, choice))

    def top_influence(  # noqa: PLR0913 - one of six ways to name the fixed example, and the list's options
        self,
        *,
        test_id: int | None = None,
        test_key: str | None = None,
        train_id: int | None = None,
        train_key: str | None = None,
        target_id: int | None = None,
        target_key: str | None = None,
        k: int = 20,
        direction: str = "helps",
        same_class: bool = False,
        level: float = 0.95,
        interval: str = "selected",
    ) -> DuckDBPyRelation:
        """Return the k strongest influences (Feldman and Zhang 2020, equation 2) with one side fixed.

        ``test_id``: the training examples that most influence it. ``train_id``: the test examples that it
        influences most. ``target_id``: the training examples that most influence this training example.
        ``direction`` is ``helps``, ``hurts`` or ``both`` (by absolute value).

        Raises:
            NotEnoughModels: the store has no models yet.
            InvalidInput: not exactly one example named, or a value that cannot be.
            NotFound: no example has that key.
        """
        given = {
            "test_id": (test_id, test_key),
            "train_id": (train_id, train_key),
            "target_id": (target_id, target_key),
        }
        column, row = self._one_of(given)
        filters = {"direction": direction, "same_class": same_class}
        choice = IntervalChoice(interval, level)
        return present(questions.top_influence(self.relations, SIDES[column], row, k, filters, choice))

    def score(  # noqa: PLR0913 - six ways to name two examples
        self,
        train_id: int | None = None,
        *,
        train_key: str | None = None,
        test_id: int | None = None,
        test_key: str | None = None,
        target_id: int | None = None,
        target_key: str | None = None,
        level: float = 0.95,
        interval: str = "anytime",
    ) -> DuckDBPyRelation:
        """Return the memorization of a training example, or its influence on a test or training example.

        Raises:
            NotEnoughModels: the store has no models yet.
            InvalidInput: examples not named once each, or a value that cannot be.
            NotFound: no example has that key.
        """
        _, train = self._one_of({"train_id": (train_id, train_key)})
        targets = {"test_id": (test_id, test_key), "target_id": (target_id, target_key)}
        named = any(value is not None for pair in targets.values() for value in pair)
        target = self._one_of(targets) if named else None
        return present(questions.score(self.relations, train, target, IntervalChoice(interval, level)))

    def pairs(self, *, output: str | Path | None = None, **options: Unpack[PairOptions]) -> DuckDBPyRelation:
        """Return all pairs that are strong enough: by test id, then from the strongest.

        ``top`` keeps so many of each test example, ``min_influence`` those at or above it; among pairs of
        training examples at or above ``min_memorization`` and, with ``same_class``, of equal labels. With
        ``output``, a .parquet file, a search that was interrupted goes on where it was, and the rows stay
        in the file.

        Raises:
            NotEnoughModels: the store has no models yet.
            InvalidInput: neither ``top`` nor ``min_influence``, or a value that cannot be.
            StorageFailed: the file could not be written; what was found stays beside it.
        """
        from memdb.query import pair_files  # noqa: PLC0415 - only this question needs its packages

        return pair_files.pairs(self.relations, output, options)

    def sql(
        self,
        statement: str,
        *,
        k: int | None = None,
        level: float = 0.95,
        interval: str = "anytime",
        max_pairs: int = MAX_PAIRS,
        timeout: float = questions.TIMEOUT_SECONDS,
    ) -> DuckDBPyRelation:
        """Run one SQL statement over the relations, without access to files, network or settings.

        ``k`` keeps the first k rows.

        Raises:
            InvalidInput: SQL that cannot run, that looks at too many pairs, or takes too long (seconds).
        """
        choice = IntervalChoice(interval, level)
        table = questions.sql(self.relations, statement, choice, k=k, max_pairs=max_pairs, timeout=timeout)
        return present(table)

    def train(  # noqa: PLR0913 - what, on what, how, and who watches; all have defaults
        self,
        add: int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        dataset: datasets.Dataset | None = None,
        recipe: Any = None,
        data_root: str | None = None,
        device: str = "auto",
        batch_models: int | None = None,
        compact: bool = True,
        observe: Callable[[TrainingStatus], None] = lambda _: None,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> int:
        """Train models and commit them batch by batch; return how many were committed.

        Args:
            add: how many, with random seeds.
            seeds: instead, the models' seeds; those that are in the store already are skipped.
            dataset: the data set, where the store's name for it is not enough to load it.
            recipe: the recipe, likewise: a name, or anything that fits `Recipe`.
            data_root: the folder that holds the data.
            device: ``auto``, ``cpu``, ``cuda:0``, ...
            batch_models: models trained at once; the recipe decides where not given.
            compact: gather small segments into blocks when there are some dozens.
            observe: called often with the state of things.
            stop_requested: asked at every step; true ends the run, without the batch in flight.

        Raises:
            Mismatch: the data set or recipe is not the store's.
            TrainingFailed: the recipe failed; what was committed before stays.
            StorageFailed: a batch could not be committed.
        """
        self._require_now("train")
        data = dataset or self.load_dataset(data_root)
        new = self._new_seeds(add, seeds)
        plan = Plan(data, self._bound_recipe(recipe), new, device, batch_models, compact=compact)
        try:
            return carry_out(self.store, plan, self.relations, observe, stop_requested)
        finally:
            self.refresh()

    def compact(
        self, *, alone: bool = False, observe: Callable[[int, int], None] = lambda _done, _total: None
    ) -> Compaction | None:
        """Gather segments into blocks of up to 1,024 models and number the result; None if all is done.

        Answers stay the same, bit for bit, before, during and after; writers and readers may go on.
        ``alone`` says that nobody else compacts this store, for storages that cannot tell; ``observe`` hears
        how many models of how many are done.

        Raises:
            InvalidInput: the storage overwrites what it was told only to create, and ``alone`` is not said.
            StorageFailed: the storage refused, or a segment is not intact; for readers nothing changed.
        """
        self._require_now("compact")
        try:
            return compaction.compact(self.store.storage, self.store.manifest, alone=alone, observe=observe)
        finally:
            self.refresh()

    def gc(
        self,
        *,
        grace: timedelta = GRACE,
        alone: bool = False,
        dry_run: bool = False,
        observe: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> list[cleaning.Garbage]:
        """Remove, or with ``dry_run`` only list, what no reader and no writer can need any more.

        That is what killed writers left, segments that a block took in and blocks that were replaced, each
        after the grace period. ``alone`` says that nobody else uses the store: it allows a shorter one.

        Raises:
            InvalidInput: a grace period below 24 hours without ``alone``.
            StorageFailed: the storage refused, or a block is not intact: what it took in stays.
        """
        self._require_now("gc")
        storage, manifest = self.store.storage, self.store.manifest
        doomed = cleaning.garbage(storage, manifest, grace, alone=alone)
        if dry_run:
            return doomed
        removed = []
        try:
            for item in cleaning.remove(storage, manifest, doomed):
                removed.append(item)
                observe(len(removed), len(doomed))
        finally:
            self.refresh()
        return removed

    def verify(
        self, *, repair: bool = False, observe: Callable[[int, int], None] = lambda _done, _total: None
    ) -> tuple[Report, Repair | None]:
        """Compare every object and every number of the store with what was written.

        With ``repair`` damaged parts are set aside, never deleted, so that the rest can be used.

        Raises:
            StorageFailed: the storage did not answer.
        """
        if repair:
            self._require_now("repair")
        storage, manifest = self.store.storage, self.store.manifest
        report = verification.verify(storage, manifest, observe)
        if not repair or not report.damages:
            return report, None
        try:
            return report, repairs.repair(storage, manifest, report)
        finally:
            self.refresh()

    def retract(self, model_ids: Sequence[str], because: str) -> Retraction:
        """Withdraw models, named by their ids or the beginnings of them, for ever and with a reason.

        Withdrawing models because of what they predict makes every score biased and voids its interval.

        Raises:
            InvalidInput: no reason, or a model that is not there or was withdrawn already.
            StorageFailed: the storage refused.
        """
        self._require_now("retract")
        try:
            return retraction.retract(self.store.storage, self.store.manifest, model_ids, because)
        finally:
            self.refresh()

    def _require_now(self, verb: str) -> None:
        if self._as_of is not None:
            raise InvalidInput(f"cannot {verb} snapshot {self._as_of}", hint="open the store without as_of")

    def _new_seeds(self, add: int | None, seeds: Sequence[int] | None) -> list[int]:
        """Return random seeds, or those given whose models are not in the store yet."""
        if (add is None) == (seeds is None):
            raise InvalidInput(
                "train takes either a number of models or their seeds", hint="give one of them"
            )
        if seeds is None:
            return subsets.random_seeds(require_positive(add or 0, "--add"))
        odd = next((seed for seed in seeds if not 0 <= seed < 2**64), None)
        if odd is not None or len(set(seeds)) != len(seeds):
            raise InvalidInput(
                f"the seeds {list(seeds)[:5]} cannot be used",
                hint="give different numbers from 0 to 2**64 - 1",
            )
        store_seed = self.store.manifest.seed
        known = {model.model_id for part in self.store.snapshot().parts for model in part.models}
        return [seed for seed in seeds if subsets.model_id(store_seed, seed) not in known]

    def _bound_recipe(self, recipe: Any) -> recipes.BoundRecipe:
        if isinstance(recipe, str):
            return recipes.resolve(recipe, {}, dataset=self.store.manifest.dataset)
        if recipe is not None:
            return recipes.bind(recipe)
        if self._recipe is not None:
            return self._recipe
        return recipes.rebind(self.store.manifest.recipe)

    def load_dataset(self, data_root: str | None = None) -> datasets.Dataset:
        """Load the examples themselves, which a store does not keep.

        Raises:
            InvalidInput: the data set cannot be loaded by its name.
            NotFound: the data is not in ``data_root``.
        """
        if self._dataset is None:
            name = self.store.manifest.dataset
            if name == IN_MEMORY:
                raise InvalidInput(
                    f"{self.url} was made of arrays in memory, which a store does not keep",
                    hint="train from Python: memdb.open(url).train(add=100, dataset=..., recipe=...)",
                )
            self._dataset = datasets.load(name, data_root)
        return self._dataset

    def _one_of(self, given: Mapping[str, tuple[int | None, str | None]]) -> tuple[str, int]:
        """Return the column and row of the one example that was named, by id or by key."""
        named = [
            (column, identifier, key)
            for column, (identifier, key) in given.items()
            if identifier is not None or key is not None
        ]
        options = [f"--{column.replace('_', '-')}" for column in given]
        if len(named) != 1 or None not in named[0][1:]:
            wanted = " or ".join(options)
            found = "none" if not named else "more than one"
            raise InvalidInput(
                f"name exactly one example, {found} was given", hint=f"use one of {wanted}, or its key"
            )
        column, identifier, key = named[0]
        example_set = layout.TEST if column == "test_id" else layout.TRAIN
        return column, self.relations.row_of(example_set, identifier, key, f"--{column.replace('_', '-')}")
