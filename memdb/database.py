"""The Python face: a store and its verbs, which are the command line's. `Assessor` has those that ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from memdb import datasets, engines, recipes, subsets
from memdb.assessing import Assessor
from memdb.engines import Work
from memdb.engines.request import Request
from memdb.errors import InvalidInput
from memdb.permission import Names
from memdb.seeds import Seeds, random_seeds, require_seeds, task_seeds
from memdb.sharing import publish as publication
from memdb.store import Store, cleaning, compaction, extending, open_storage, retraction, verification
from memdb.store import repair as repairs
from memdb.store.bases import Following
from memdb.store.copy_verification import verify_copy
from memdb.store.timing import GRACE
from memdb.thumbnails import Thumbnails, thumbnails_of
from memdb.train import SOURCE, require_positive
from memdb.training import Limits, Plan, TrainingStatus, carry_out, warn_of_doubts

if TYPE_CHECKING:
    from memdb.commits import Pin, Retraction
    from memdb.interop.exporting import Exported
    from memdb.published import Credits
    from memdb.query.pair_scores import PairOptions
    from memdb.store.compaction import Compaction
    from memdb.store.damages import Report
    from memdb.store.repair import Repair

IN_MEMORY = "in-memory"


class Database(Assessor):
    """A store, what one can ask of it (see `Assessor`), and what one can do to it."""

    def __init__(  # noqa: PLR0913 - a store, what trains for it, and what answers are of
        self,
        store: Store,
        dataset: datasets.Dataset | None = None,
        recipe: recipes.BoundRecipe | None = None,
        *,
        as_of: int | None = None,
        exclude: Sequence[str] = (),
        scores: str | None = None,
        assume: tuple[int, float] | None = None,
    ) -> None:
        super().__init__(store, as_of=as_of, exclude=exclude, scores=scores, assume=assume)
        self._dataset = dataset
        self._recipe = recipe

    def train(  # noqa: PLR0913 - what, on what, where, until when, and who watches; all have defaults
        self,
        add: int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        task_id: str | int | None = None,
        until_half_width: float | None = None,
        max_seconds: float | None = None,
        dataset: str | datasets.Dataset | None = None,
        recipe: Any = None,
        recipe_version: str | None = None,
        data_root: str | None = None,
        device: str = "auto",
        batch_models: int | None = None,
        workers: int | None = None,
        ray: str | None = None,
        task_cpus: int = 1,
        task_gpus: float | None = None,
        checkpoint_dir: str | Path | None = None,
        compact: bool = True,
        observe: Callable[[TrainingStatus], None] = warn_of_doubts,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> int:
        """Train models and commit them batch by batch; return how many were committed.

        Args:
            add: how many, with random seeds.
            seeds: instead, the models' seeds; those that are in the store already are skipped.
            task_id: takes the seeds from this name, so that the same task trains the same models when it is
                run again, and skips those that are in the store already.
            until_half_width: end once the mean half-width of the memorization intervals, which `info` shows,
                is this or less; without ``add``, train as many models as that takes.
            max_seconds: end after this time; without ``add``, train as many models as that allows.
            dataset: the data set, by name or a `Dataset`: where the store's name for it is not enough to load
                it, or is code that you neither made it with nor named before.
            recipe: the recipe, likewise: a name, or anything that fits `Recipe`.
            recipe_version: of that recipe, where it has none of its own.
            data_root: the folder that holds the data.
            device: ``auto``, ``cpu``, ``cuda:0``, ...
            batch_models: models trained at once; the recipe decides where not given.
            workers: processes that train at the same time: one a GPU, or several that divide the CPU's cores.
            ray: instead, a Ray cluster: ``local``, ``auto``, or its address; ``workers`` limits its tasks.
            task_cpus: cores of one Ray task.
            task_gpus: GPUs of one Ray task, which may be a fraction; 1 where the cluster has any.
            checkpoint_dir: where recipes may keep half-trained models; below the user's home if not given.
            compact: gather small segments into blocks when there are some dozens.
            observe: called often with the state of things; if not given, doubts become Python warnings.
            stop_requested: asked at every step; true ends the run, without the batch in flight.

        Raises:
            UnnamedCode: the store's recipe or data set is code that you have not named.
            Mismatch: the data set or recipe is not the store's.
            TrainingFailed: the recipe failed; what was committed before stays.
            StorageFailed: a batch could not be committed.
        """
        self._require_now("train")
        limits = Limits(until_half_width, max_seconds)
        if batch_models is not None:
            require_positive(batch_models, "--batch-models")
        wanted = self._wanted(add, seeds, task_id, endless=limits != Limits())
        request = None if ray is None else Request(ray, workers, task_cpus, task_gpus)
        recipe = self._recipe if recipe is None else recipe
        names = Names(self._dataset if dataset is None else dataset, recipe)
        names.require_for(self.store, "training")
        bound = self._bound(recipe, recipe_version)  # before waiting for the data
        work = Work(
            self.store,
            self._data_to_train_on(dataset, data_root, here=workers is None and ray is None),
            bound,
            data_root,
            device,
            batch_models,
            None if checkpoint_dir is None else Path(checkpoint_dir),
        )
        before = self.relations()
        plan = Plan(engines.choose(work, workers, request), wanted, limits, compact, self._doubt(bound))
        try:
            return carry_out(self.store, plan, before, observe, stop_requested)
        finally:
            self.refresh()

    def export(
        self,
        path: str | Path,
        what: str = "memorization",
        *,
        outcome: str = "correct",
        **options: Unpack[PairOptions],
    ) -> Exported:
        """Write what the store knows as files that other people's code reads.

        ``memorization`` and ``pairs`` (``options`` are those of `pairs`): .parquet, .csv, or .npz with an
        array a column. ``fz-pairs`` and ``fz-classes``: .npz as Feldman and Zhang published theirs.
        ``models``: masks and outcomes, as `import_file` reads them, and ``lira``, keep and scores: .npz, or a
        folder of .npy.

        Raises:
            InvalidInput: something else, or a suffix that does not fit.
            AlreadyExists: a folder with other things in it.
            StorageFailed: the place cannot be written.
        """
        from memdb.interop import exporting  # noqa: PLC0415 - only this needs it

        target = Path(path)
        suffix = exporting.require_destination(target, what)
        observe = options.get("observe", lambda _done, _total: None)
        if what in {"models", "lira"}:
            return exporting.write_models(target, self.relations(), what, observe)
        if what == "fz-classes":
            return exporting.write_fz_classes(target, self.asked(), observe)
        level, interval = options.get("level", 0.95), options.get("interval", "anytime")
        if what == "memorization":
            rows = self.memorization(outcome=outcome, level=level, interval=interval)
        else:
            rows = self.pairs(outcome=outcome, **options)
        table = rows.to_arrow_table()
        if what == "fz-pairs":
            return exporting.write_fz_pairs(target, table)
        if suffix == ".npz":
            return exporting.write_columns(target, table)
        facts: dict[str, str | float | int] = {
            "interval": interval,
            "level": level,
            "outcome": outcome,
            "n_models": self.n_models,
        }
        return exporting.write_table(target, table, facts if self.imported_scores is None else {})

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
        storage, manifest, published = self.store.storage, self.store.manifest, self.store.published
        if published is not None:
            return verify_copy(storage, manifest, published, observe), None
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

    def update(self, base: str | None = None) -> Pin | None:
        """Take in the newest snapshot of the store that this one extends; None where it was taken in already.

        ``base`` is where that store is now, if it moved.

        Raises:
            InvalidInput: this store extends none, or the address may not be followed.
            NotFound: the base is not there.
            Mismatch: another store is there, or an older copy.
        """
        self._require_now("update")
        following = self.store.following or Following(lambda _store_id, _url: False)
        try:
            return extending.update(self.store.storage, self.store.manifest, following, base)
        finally:
            self.refresh()

    def publish(  # noqa: PLR0913 - where to, what of it, whose work, and who watches
        self,
        url: str,
        *,
        include: Sequence[str] = publication.INCLUDED,
        credit: Credits | None = None,
        dataset: str | None = None,
        data_root: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        announce: Callable[[publication.Plan], bool] = lambda _: True,
        observe: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> publication.Publication | None:
        """Write a frozen copy of the models that count to a path or URL, for others to ask where it is.

        What is there already is left alone, so that a publication that was cut off goes on, and one after
        more models writes what is new; readers see what was published before until the end.

        Args:
            url: a path, or a URL that fsspec can write to.
            include: ``bits``; ``confidence`` where the copy is to answer that outcome too; ``thumbnails``,
                small pictures of the examples.
            credit: title, authors, licence and citation; those of before where not given.
            dataset: for thumbnails, the data set's name where it is code that you have not named before.
            data_root: likewise, the folder that holds it.
            storage_options: for the fsspec driver of ``url``.
            announce: hears what will be written before anything is; false leaves it at that.
            observe: hears how much of how much is done.

        Raises:
            AlreadyExists: the destination holds something else.
            InvalidInput: something to include that there is not, a read-only destination, models left out,
                or an older snapshot than is there.
            NotEnoughModels: the store has neither models nor imported scores.
            StorageFailed: the destination refused, or a segment is not intact; readers see nothing new.
        """
        if self._exclude:
            raise InvalidInput(
                f"cannot publish {self.url} without some models: nobody would see that they are missing",
                hint="withdraw them with `memdb retract`, which is on record, or publish all",
            )
        target = open_storage(url, storage_options)
        wanted = publication.plan(
            self.store, self.snapshot, target, include, credit, lambda: self._pictures(data_root, dataset)
        )
        there = wanted.before.snapshot if wanted.before else None
        if self._as_of is not None and there is not None and there.n_models > self.n_models:
            raise InvalidInput(
                f"{url} has {there.n_models:,} models already, snapshot {self._as_of} only {self.n_models:,}",
                hint="publish it to a new place, or leave --snapshot out",
            )
        if not announce(wanted):
            return None
        return publication.carry_out(wanted, self.relations(), observe)

    def _pictures(self, data_root: str | None, dataset: str | None) -> Mapping[str, Thumbnails]:
        """Return pictures of the examples, for which the data set is loaded by its name."""
        if self.store.published is not None:
            raise InvalidInput(
                f"{self.url} is a published copy: pictures of its examples are its owner's to make",
                hint="take those that it has along with `memdb pull`, or leave thumbnails out",
            )
        data = self.load_dataset(data_root, dataset)
        manifest = self.store.manifest
        manifest.require_same(data.infos, manifest.recipe, self.url)
        found = thumbnails_of(data)
        return {item.name: found[item.name] for item in manifest.sets}

    def _require_now(self, verb: str) -> None:
        self.store.require_growing(verb)
        if self._as_of is not None:
            raise InvalidInput(f"cannot {verb} snapshot {self._as_of}", hint="open the store without as_of")
        if self._exclude:
            raise InvalidInput(f"cannot {verb} without some models", hint="open the store without exclude")

    def _wanted(
        self, add: int | None, seeds: Sequence[int] | None, task_id: str | int | None, *, endless: bool
    ) -> Seeds:
        """Return the seeds of the models to train: random ones, a task's, or those given."""
        if (add is not None or endless) == (seeds is not None) or (seeds is not None and task_id is not None):
            raise InvalidInput(
                "train takes either a number of models or their seeds", hint="give one of them"
            )
        store_seed = self.store.manifest.seed
        n_models = None if add is None else require_positive(add, "--add")
        if seeds is None and task_id is None:
            source = random_seeds() if n_models is None else subsets.random_seeds(n_models)
            return Seeds(source, n_models, store_seed)
        known = frozenset(model.model_id for part in self.store.own_snapshot().parts for model in part.models)
        if seeds is None:
            return Seeds(task_seeds(str(task_id)), n_models, store_seed, known)
        require_seeds(seeds)
        return Seeds(seeds, len(seeds), store_seed, known)

    def _data_to_train_on(
        self, given: str | datasets.Dataset | None, data_root: str | None, *, here: bool
    ) -> str | datasets.Dataset:
        """Return the data, or its name, by which workers load it themselves."""
        if isinstance(given, datasets.Dataset):
            return given
        name = self.store.manifest.dataset if given is None else given
        return self.load_dataset(data_root, given) if here or name == IN_MEMORY else name

    def _bound(self, recipe: Any, version: str | None) -> recipes.BoundRecipe:
        theirs = self.store.manifest.recipe
        if isinstance(recipe, recipes.BoundRecipe):
            return recipe
        if recipe is not None and not isinstance(recipe, str):
            return recipes.bind(recipe, version=version, wanted=theirs.fingerprint)
        if recipe is not None and (version is not None or recipe != theirs.imports):
            return recipes.resolve(recipe, {}, version, self.store.manifest.dataset)
        if version is not None:
            raise InvalidInput(f"recipe_version {version!r} is of no recipe", hint="give the recipe too")
        return recipes.rebind(theirs)

    def _doubt(self, recipe: recipes.BoundRecipe) -> str:
        """Return a remark where the recipe's source is another one than that of models that are there."""
        if recipe.info.fingerprint != self.store.manifest.recipe.fingerprint:
            return ""  # which is refused later
        return recipe.change_since(model.versions.get(SOURCE) for _, model in self.snapshot.models)

    def load_dataset(self, data_root: str | None = None, dataset: str | None = None) -> datasets.Dataset:
        """Load the examples themselves, which a store does not keep, from the folder that holds them.

        Raises:
            UnnamedCode: the store's data set is code, and neither ``dataset`` nor you before named it.
            InvalidInput: the data set cannot be loaded by its name.
            NotFound: the data is not in ``data_root``.
        """
        if dataset is None and self._dataset is not None:
            return self._dataset
        Names(dataset).require_for(self.store, "loading its examples", ("dataset",))
        name = self.store.manifest.dataset if dataset is None else dataset
        if name == IN_MEMORY:
            raise InvalidInput(
                f"{self.url} was made of arrays in memory, which a store does not keep",
                hint="train from Python: memdb.open(url).train(add=100, dataset=..., recipe=...)",
            )
        data = datasets.load(name, data_root)
        if name == self.store.manifest.dataset:
            self._dataset = data
        return data
