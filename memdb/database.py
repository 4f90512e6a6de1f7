"""A store, what one can ask of it, and what one can do to it: the command line's verbs as methods.

Each verb imports what it needs when it is called: a question does not wait for what trains and publishes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from memdb.errors import InvalidInputError, MemdbError
from memdb.format import layout
from memdb.format.published import INCLUDED
from memdb.permission import Names
from memdb.query.examples import ExampleNames, TargetNames, find_one, find_pair
from memdb.query.intervals import IntervalSpec, require_level
from memdb.query.options import MAX_PAIRS, TIMEOUT_SECONDS, Order, RankedQuery
from memdb.store.grace import GRACE

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from types import TracebackType

    import numpy as np
    import pyarrow as pa
    from duckdb import DuckDBPyRelation
    from numpy.typing import NDArray

    from memdb.analysis.lds import Attribution
    from memdb.datasets import Dataset
    from memdb.format.published import Credits
    from memdb.format.score_table import ScoreTable
    from memdb.format.snapshot_record import Pin, Retraction
    from memdb.interop.export import Exported
    from memdb.look.report import WrittenReport
    from memdb.look.sheets import PicturesOf
    from memdb.query.answers import Answers
    from memdb.query.imported_scores import TableRelations
    from memdb.query.options import PairOptions
    from memdb.query.relations import Relations
    from memdb.query.results import Results
    from memdb.recipes import BoundRecipe
    from memdb.sharing.publish import Plan, Publication
    from memdb.sharing.thumbnails import Thumbnails
    from memdb.store import Snapshot, Store
    from memdb.store.maintenance.compact import Compaction
    from memdb.store.maintenance.gc import Garbage
    from memdb.store.maintenance.repair import Repair
    from memdb.store.maintenance.verify_report import Report
    from memdb.training.run import TrainingStatus
    from memdb.training.seeds import Seeds

IN_MEMORY = "in-memory"
FIXED = ("test_id", "train_id", "target_id")


class Database:
    """A store, what one can ask of it, and what one can do to it.

    Answers are of the models that were there when it was opened.

    Every question returns a DuckDB relation whose rows are already computed: ``.df()``, ``.arrow()``,
    ``.pl()``, ``.fetchall()``. Scores come with an interval of the kind and level asked for and the counts
    behind it; they are NULL where an example was never in, or never out of, a subset.

    ``outcome`` is what is averaged over models: ``correct``, 0 or 1, or ``confidence``, the probability that
    the model gives to the label. Scores of the two differ and are never mixed; columns ``k_in`` and ``k_out``
    count right models, ``s_in``, ``s_out`` sum confidences and ``q_in``, ``q_out`` their squares.

    ``scores`` names a score table of the store, imported scores without models: lists, scores, pairs, SQL and
    comparisons answer from it then. So they do without a name where a store has one table and no models.

    Examples are named by keyword (`ExampleNames`): ``test_id=42``, or ``test_key="test/42.png"``.
    """

    def __init__(  # noqa: PLR0913 - a store, what trains for it, and what answers are of
        self,
        store: Store,
        dataset: Dataset | None = None,
        recipe: BoundRecipe | None = None,
        *,
        as_of: int | None = None,
        exclude: Sequence[str] = (),
        scores: str | None = None,
        assume: tuple[int, float] | None = None,
    ) -> None:
        self.store = store
        self._dataset = dataset
        self._recipe = recipe
        self._as_of = as_of
        self._exclude = tuple(exclude)
        self._named_scores = scores
        self._assume = assume
        self._relations: dict[str, Relations] = {}

    def __repr__(self) -> str:
        return f"Database({self.url!r})"

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
        from memdb.store.exclusion import without

        return without(self.store.snapshot(self._as_of), self._exclude)

    def relations(self, outcome: str = "correct") -> Relations:
        """Return the snapshot as DuckDB relations for an outcome.

        Raises:
            InvalidInputError: no such outcome.
        """
        from memdb.query.relations import Relations
        from memdb.query.templates import require_outcome

        if outcome not in self._relations:
            self._relations[outcome] = Relations(self.snapshot, require_outcome(outcome))
        return self._relations[outcome]

    def score_tables(self) -> list[ScoreTable]:
        """Return what the store says of its score tables, in the order of import."""
        return self.store.score_tables()

    def thumbnails(self, set_name: str, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Return small pictures of examples of a published copy, uint8 [rows, height, width, channels].

        Raises:
            NotFoundError: the owner included none, or there is no such set or example.
        """
        from memdb.store.thumbnails import read_thumbnails

        shown = self.store.published.thumbnails if self.store.published else None
        return read_thumbnails(self.store.storage, self.store.manifest, shown, set_name, rows)

    @cached_property
    def imported_scores(self) -> TableRelations | None:
        """The score table that is asked (see `imported_scores.chosen`); None where models are."""
        from memdb.query.imported_scores import Assumed, chosen

        assumed = None if self._assume is None else Assumed(*self._assume)
        return chosen(self.store, self.snapshot, self._named_scores, assumed)

    def answers(self, outcome: str = "correct") -> Answers:
        """Return what answers questions about scores: imported ones where they are asked, else the models."""
        from memdb.query.imported_scores import ScoreAnswers
        from memdb.query.questions import ModelAnswers

        if self.imported_scores is not None:
            return ScoreAnswers(self.imported_scores)
        return ModelAnswers(self.relations(outcome))

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
        """Close the DuckDB connections; the next question opens another."""
        for relations in self._relations.values():
            relations.close()
        self._relations.clear()
        if self.__dict__.get("imported_scores") is not None:
            self.__dict__["imported_scores"].close()
        for name in ("snapshot", "imported_scores"):
            self.__dict__.pop(name, None)

    def info(
        self, *, outcome: str = "correct", level: float = 0.95, interval: str = "anytime"
    ) -> DuckDBPyRelation:
        """Return one row about the store: data, recipe, models, accuracies, how tight its intervals are."""
        from memdb.query.questions import info

        return self._present(info(self.relations(outcome), IntervalSpec(interval, level)))

    def top_memorized(  # noqa: PLR0913 - the options of every list
        self,
        k: int = 20,
        *,
        class_name: str | None = None,
        order: str = "shrunk",
        fdr: str = "once",
        ranks: bool = False,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "selected",
    ) -> DuckDBPyRelation:
        """Return the k most memorized training examples (Feldman and Zhang 2020, equation 1).

        ``order`` is ``shrunk``, ``memorization``, ``q_value`` or ``lo``; ``fdr`` is ``once``, for q-values of
        one look, or ``anytime``, for a list that is looked at again after models were added; ``ranks`` adds
        ``rank_lo`` and ``rank_hi``, between which the true rank of every row is at once.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: a class, k, order, outcome, level or interval that cannot be.
        """
        query = RankedQuery(k, Order(order, "helps", fdr, ranks), IntervalSpec(interval, level))
        return self._present(self.answers(outcome).top_memorized(class_name, query))

    def top_influence(  # noqa: PLR0913 - the options of every list
        self,
        *,
        k: int = 20,
        direction: str = "helps",
        same_class: bool = False,
        order: str = "shrunk",
        fdr: str = "once",
        ranks: bool = False,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "selected",
        **example: Unpack[ExampleNames],
    ) -> DuckDBPyRelation:
        """Return the k strongest influences (Feldman and Zhang 2020, equation 2) with one side fixed.

        ``test_id``: the training examples that most influence it. ``train_id``: the test examples that it
        influences most. ``target_id``: the training examples that most influence this training example.
        ``direction`` is ``helps``, ``hurts`` or ``both`` (by absolute value); ``order`` is ``shrunk``,
        ``influence``, ``q_value`` or ``lo``; ``fdr`` and ``ranks`` are those of `top_memorized`.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: not exactly one example named, or a value that cannot be.
            NotFoundError: no example has that key.
        """
        fixed = find_one(self.relations(), example, FIXED)
        query = RankedQuery(k, Order(order, direction, fdr, ranks), IntervalSpec(interval, level))
        return self._present(self.answers(outcome).top_influence(fixed, query, same_class=same_class))

    def score(
        self,
        train_id: int | None = None,
        *,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "anytime",
        **examples: Unpack[TargetNames],
    ) -> DuckDBPyRelation:
        """Return the memorization of a training example, or its influence on a test or training example.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: examples not named once each, or a value that cannot be.
            NotFoundError: no example has that key.
        """
        train, target = find_pair(self.relations(), {"train_id": train_id, **examples})
        return self._present(self.answers(outcome).score(train, target, IntervalSpec(interval, level)))

    def memorization(
        self,
        train_id: int | None = None,
        *,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "anytime",
    ) -> DuckDBPyRelation:
        """Return the memorization of every training example, or of one, by ascending id.

        Raises:
            InvalidInputError: a value that cannot be.
        """
        return self._scores("memorization", {"train_id": train_id}, outcome, IntervalSpec(interval, level))

    def influence(
        self,
        *,
        train_id: int | None = None,
        test_id: int | None = None,
        same_class: bool = False,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "anytime",
    ) -> DuckDBPyRelation:
        """Return the influence on a test example, of a training example, or of one pair, by ascending ids.

        Raises:
            InvalidInputError: neither example named (`pairs` is for all of them), or a value that cannot be.
        """
        ids = {"train_id": train_id, "test_id": test_id}
        spec = IntervalSpec(interval, level)
        return self._scores("influence", ids, outcome, spec, same_class=same_class)

    def train_influence(
        self,
        *,
        train_id: int | None = None,
        target_id: int | None = None,
        same_class: bool = False,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "anytime",
    ) -> DuckDBPyRelation:
        """Return the influence of training examples on training examples (``target_id``), by ascending ids.

        Raises:
            InvalidInputError: neither example named, or a value that cannot be.
        """
        ids = {"train_id": train_id, "target_id": target_id}
        spec = IntervalSpec(interval, level)
        return self._scores("train_influence", ids, outcome, spec, same_class=same_class)

    def _scores(
        self,
        relation: str,
        ids: Mapping[str, int | None],
        outcome: str,
        spec: IntervalSpec,
        *,
        same_class: bool = False,
    ) -> DuckDBPyRelation:
        return self._present(self.answers(outcome).scores(relation, ids, spec, same_class=same_class))

    def counts(
        self, *, test_id: int | None = None, target_id: int | None = None
    ) -> dict[str, NDArray[np.int32]]:
        """Return the raw counts behind scores as int32 arrays [train].

        ``n_in`` and ``n_out``: models whose subset held or left out each training example; ``k_in`` and
        ``k_out``: those of them that were right on the test example, on the training example
        ``target_id``, or, with neither, on the example itself, as for memorization.

        Raises:
            InvalidInputError: both named, or an id out of range.
        """
        from memdb.query.questions import counts

        return counts(self.relations(), {"test_id": test_id, "target_id": target_id})

    def pairs(
        self,
        *,
        outcome: str = "correct",
        output: str | Path | None = None,
        **options: Unpack[PairOptions],
    ) -> DuckDBPyRelation:
        """Return all pairs that are strong enough: by test id, then from the strongest.

        ``top`` keeps so many of each test example, ``min_influence`` those at or above it; among pairs of
        training examples at or above ``min_memorization`` and, with ``same_class``, of equal labels. With
        ``output``, a .parquet file, a search that was interrupted goes on where it was, and the rows stay
        in the file. ``outcome`` is ``correct`` where not given.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: neither ``top`` nor ``min_influence``, or a value that cannot be.
            StorageError: the file could not be written; what was found stays beside it.
        """
        if output is None:
            return self._present(self.answers(outcome).pairs(options))
        if self.imported_scores is not None:
            raise InvalidInputError("imported pairs are few", hint="write the relation: .to_parquet(path)")
        from memdb.query.pairs.parquet import written_pairs

        written_pairs(self.relations(outcome), Path(output), options)
        return self._results.in_file(Path(output))

    def sql(  # noqa: PLR0913 - the statement, its limits and its intervals
        self,
        statement: str,
        *,
        k: int | None = None,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "anytime",
        max_pairs: int = MAX_PAIRS,
        timeout: float = TIMEOUT_SECONDS,
    ) -> DuckDBPyRelation:
        """Run one SQL statement over the relations, without access to files, network or settings.

        ``k`` keeps the first k rows. The limits are DuckDB's: 4 GB bound its buffers, not what lists and
        strings take, and it ends between two steps. `memdb sql` runs a stranger's in a process of its own.

        Raises:
            InvalidInputError: SQL that cannot run, that looks at too many pairs, or takes too long (seconds).
        """
        from memdb.query.questions import sql

        relations, spec = self.answers(outcome).relations, IntervalSpec(interval, level)
        return self._present(sql(relations, statement, spec, k=k, max_pairs=max_pairs, timeout=timeout))

    def plan(  # noqa: PLR0913 - a goal has many sides; all have defaults
        self,
        half_width: float = 0.05,
        *,
        kind: str = "memorization",
        settle: float = 0.9,
        threshold: float = 0.25,
        k: int = 20,
        n_ranked: int | None = None,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "anytime",
        **examples: Unpack[ExampleNames],
    ) -> DuckDBPyRelation:
        """Return how many models goals take, how many more than there are, and for how long: one row a goal.

        ``worst_case``: the half-width for any score. From 50 models on, at the rates that the store has:
        ``median`` and ``percentile_95``, the same for half and for 95 % of the scores of ``kind``, and
        ``settled``, until the share ``settle`` of the examples above ``threshold`` has its interval above
        it. With a score named: ``named_half_width``, and ``named_from_zero``, until its interval leaves
        0 out. NULL where a thousand million models would not do.

        ``k`` and ``n_ranked`` (the training examples where not given) are those of ``selected`` and
        ``simultaneous`` intervals. `plan_without_store` has the worst case alone.

        Raises:
            InvalidInputError: a value that cannot be.
            NotEnoughModelsError: a score is named, and fewer than 50 models know its rates.
        """
        from memdb.analysis.plan import Goal, plan

        goal = Goal(half_width, kind, settle, threshold, k, n_ranked)
        goal.require()
        named = None
        if any(value is not None for value in examples.values()):
            named = find_pair(self.relations(), examples)
        return self._present(plan(self.relations(outcome), goal, IntervalSpec(interval, level), named))

    def convergence(
        self,
        train_id: int | None = None,
        *,
        looks: Sequence[int] | None = None,
        outcome: str = "correct",
        level: float = 0.95,
        **examples: Unpack[TargetNames],
    ) -> DuckDBPyRelation:
        """Return one score after the first ``n_models`` models in order of commit: one row a look.

        ``looks`` are numbers of models: 10, 20, 50, 100, ... and all of them where not given. Each row has
        the fixed and the anytime interval.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: examples not named once each, or a value that cannot be.
            NotFoundError: no example has that key.
        """
        from memdb.analysis.convergence import convergence

        train, target = find_pair(self.relations(), {"train_id": train_id, **examples})
        return self._present(convergence(self.relations(outcome), train, target, level, looks))

    def reliability(
        self,
        *,
        test_id: int | None = None,
        k: Sequence[int] | None = None,
        splits: int = 20,
        seed: int = 0,
        threshold: float | None = None,
        outcome: str = "correct",
    ) -> DuckDBPyRelation:
        """Return how far two random halves of the models agree on memorization, or on influence.

        One row a measure, with its mean, least and most over the splits: ``correlation`` of the scores of
        two halves; ``spearman_brown``, what it foretells for two whole stores of this size; ``confirmed``,
        the share of the examples at or above the threshold (0.25, or 0.15 for influence) in one half that
        are so in the other; ``top_overlap`` (Jaccard) of the first ``k`` of both. The same models and the
        same ``seed`` give the same answer.

        Raises:
            NotEnoughModelsError: fewer than four models.
            InvalidInputError: a value that cannot be.
        """
        from memdb.analysis.reliability import LISTS, Splitting, reliability

        target = None if test_id is None else find_one(self.relations(), {"test_id": test_id}, ("test_id",))
        splitting = Splitting(splits, seed, tuple(k or LISTS), threshold)
        return self._present(reliability(self.relations(outcome), target, splitting, given=k is not None))

    def classes(self, *, threshold: float = 0.25, outcome: str = "correct") -> DuckDBPyRelation:
        """Return one row a class, the hardest to learn first.

        ``consistency`` is the mean accuracy on training examples of the models that had not seen them,
        ``train_rate`` that of those that had, ``memorization`` the mean score, ``n_memorized`` the examples
        at or above the threshold, ``test_rate`` the accuracy on test examples.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: a value that cannot be.
        """
        from memdb.analysis.classes import classes

        return self._present(classes(self.relations(outcome), threshold))

    def class_influence(self, *, outcome: str = "correct") -> DuckDBPyRelation:
        """Return the mean influence of each class's training examples on each class's test examples.

        ``null_se`` is the standard deviation of the mean if no example had any effect, ``q_value`` the false
        discovery rate over all pairs of classes.

        Raises:
            NotEnoughModelsError: fewer than two models.
        """
        from memdb.analysis.classes import class_influence

        return self._present(class_influence(self.relations(outcome)))

    def compare(  # noqa: PLR0913 - the other store, what of them, and the list's options
        self,
        other: Database,
        *,
        test_id: int | None = None,
        k: int = 20,
        threshold: float | None = None,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "selected",
    ) -> DuckDBPyRelation:
        """Return the k examples on which two stores of one data set differ most, and how far they agree.

        Scores are memorization or, with ``test_id``, the influence on a test example. ``difference`` is this
        store's less the other's, ``lo`` and ``hi`` its interval. The same in every row: ``jaccard`` of the
        examples at or above the threshold (0.25, or 0.15 for influence), ``top_overlap`` (Jaccard) of the
        first k of both, ``spearman``, ``mean_difference``, and what the stores have in common. Counts are
        never added up.

        Raises:
            MismatchError: the data sets are not the same.
            NotEnoughModelsError: one of them has no models.
            InvalidInputError: a value that cannot be.
        """
        from memdb.analysis.compare import compare

        relations, others = self.answers(outcome).relations, other.answers(outcome).relations
        if test_id is not None:
            relations.row_of(layout.TEST, test_id, None, "--test-id")
        return self._present(compare(relations, others, test_id, k, threshold, IntervalSpec(interval, level)))

    def membership(
        self,
        *,
        variant: str = "online",
        variance: str = "auto",
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> DuckDBPyRelation:
        """Return how well the likelihood-ratio attack tells whose subset had which training example.

        One row an example, the most exposed first, with its AUC over models; in every row what the attack on
        each model in turn comes to. ``variant`` is ``online`` or ``offline``, ``variance`` ``example``,
        ``pooled`` over examples, or ``auto``: pooled with few models.

        Raises:
            NotFoundError: the store keeps no logit confidences.
            NotEnoughModelsError: fewer than eight models.
            InvalidInputError: a value that cannot be.
        """
        from memdb.analysis.membership import Attack, membership

        return self._present(membership(self.relations(), Attack(variant, variance), progress))

    def lds(  # noqa: PLR0913 - whose scores, of which models, and the bootstrap
        self,
        scores: Attribution,
        *,
        outcome: str | None = None,
        model_ids: Sequence[str] | None = None,
        resamples: int = 200,
        seed: int = 0,
        level: float = 0.95,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> DuckDBPyRelation:
        """Return the linear datamodeling score of attribution scores [test, train]: one row a test example.

        ``scores`` is a `memdb.interop.arrays.ArrayFile`, or anything with ``shape``, ``rows(start, stop)``
        and ``place``. Use models that the scores were not computed from: ``model_ids`` names them.
        ``outcome`` is ``logit_confidence``, ``margin`` or ``correct``; where not given, the first of these
        that the store keeps.

        Raises:
            InvalidInputError: scores of another shape or with numbers that are none, or a value that cannot
                be.
            NotEnoughModelsError: fewer than five models.
        """
        from memdb.analysis.lds import Bootstrap, lds

        bootstrap = Bootstrap(resamples, seed, require_level(level))
        return self._present(lds(self.relations(), scores, outcome, model_ids, bootstrap, progress))

    def train(  # noqa: PLR0913 - what, on what, where, until when, and who watches; all have defaults
        self,
        add: int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        task_id: str | int | None = None,
        until_half_width: float | None = None,
        max_seconds: float | None = None,
        dataset: str | Dataset | None = None,
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
        progress: Callable[[TrainingStatus], None] | None = None,
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
            progress: called often with the state of things; if not given, doubts become Python warnings.
            stop_requested: asked at every step; true ends the run, without the batch in flight.

        Raises:
            UnnamedCodeError: the store's recipe or data set is code that you have not named.
            MismatchError: the data set or recipe is not the store's.
            TrainingError: the recipe failed; what was committed before stays.
            StorageError: a batch could not be committed.
        """
        from memdb.training import engines
        from memdb.training.engines.request import Request
        from memdb.training.loop import require_positive
        from memdb.training.run import Limits, Plan, carry_out, warn_of_doubts

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
        work = engines.Work(
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
            return carry_out(self.store, plan, before, progress or warn_of_doubts, stop_requested)
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
            InvalidInputError: something else, or a suffix that does not fit.
            AlreadyExistsError: a folder with other things in it.
            StorageError: the place cannot be written.
        """
        from memdb.interop import export

        target = Path(path)
        suffix = export.require_destination(target, what)
        progress = options.get("progress", lambda _done, _total: None)
        if what in {"models", "lira"}:
            return export.write_models(target, self.relations(), what, progress)
        if what == "fz-classes":
            return export.write_fz_classes(target, self.answers().relations, progress)
        level, interval = options.get("level", 0.95), options.get("interval", "anytime")
        if what == "memorization":
            rows = self.memorization(outcome=outcome, level=level, interval=interval)
        else:
            rows = self.pairs(outcome=outcome, **options)
        table = rows.to_arrow_table()
        if what == "fz-pairs":
            return export.write_fz_pairs(target, table)
        if suffix == ".npz":
            return export.write_columns(target, table)
        facts: dict[str, str | float | int] = {
            "interval": interval,
            "level": level,
            "outcome": outcome,
            "n_models": self.n_models,
        }
        return export.write_table(target, table, facts if self.imported_scores is None else {})

    def compact(
        self, *, alone: bool = False, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> Compaction | None:
        """Gather segments into blocks of up to 1,024 models and number the result; None if all is done.

        Answers stay the same, bit for bit, before, during and after; writers and readers may go on.
        ``alone`` says that nobody else compacts this store, for storages that cannot tell; ``progress`` hears
        how many models of how many are done.

        Raises:
            InvalidInputError: the storage overwrites what it was told only to create, and ``alone`` is not
                said.
            StorageError: the storage refused, or a segment is not intact; for readers nothing changed.
        """
        from memdb.store.maintenance.compact import compact

        self._require_now("compact")
        try:
            return compact(self.store.storage, self.store.manifest, alone=alone, progress=progress)
        finally:
            self.refresh()

    def gc(
        self,
        *,
        grace: timedelta = GRACE,
        alone: bool = False,
        dry_run: bool = False,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> list[Garbage]:
        """Remove, or with ``dry_run`` only list, what no reader and no writer can need any more.

        That is what killed writers left, segments that a block took in and blocks that were replaced, each
        after the grace period. ``alone`` says that nobody else uses the store: it allows a shorter one.

        Raises:
            InvalidInputError: a grace period below 24 hours without ``alone``.
            StorageError: the storage refused, or a block is not intact: what it took in stays.
        """
        from memdb.store.maintenance import gc

        self._require_now("gc")
        storage, manifest = self.store.storage, self.store.manifest
        doomed = gc.garbage(storage, manifest, grace, alone=alone)
        if dry_run:
            return doomed
        removed = []
        try:
            for item in gc.remove(storage, manifest, doomed):
                removed.append(item)
                progress(len(removed), len(doomed))
        finally:
            self.refresh()
        return removed

    def verify(
        self, *, repair: bool = False, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> tuple[Report, Repair | None]:
        """Compare every object and every number of the store with what was written.

        With ``repair`` damaged parts are set aside, never deleted, so that the rest can be used.

        Raises:
            StorageError: the storage did not answer.
        """
        from memdb.store.maintenance import repair as repairs
        from memdb.store.maintenance.verify import verify
        from memdb.store.maintenance.verify_copy import verify_copy

        if repair:
            self._require_now("repair")
        storage, manifest, published = self.store.storage, self.store.manifest, self.store.published
        if published is not None:
            return verify_copy(storage, manifest, published, progress), None
        report = verify(storage, manifest, progress)
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
            InvalidInputError: no reason, or a model that is not there or was withdrawn already.
            StorageError: the storage refused.
        """
        from memdb.store.maintenance.retract import retract

        self._require_now("retract")
        try:
            return retract(self.store.storage, self.store.manifest, model_ids, because)
        finally:
            self.refresh()

    def update(self, base: str | None = None) -> Pin | None:
        """Take in the newest snapshot of the store that this one extends; None where it was taken in already.

        ``base`` is where that store is now, if it moved.

        Raises:
            InvalidInputError: this store extends none, or the address may not be followed.
            NotFoundError: the base is not there.
            MismatchError: another store is there, or an older copy.
        """
        from memdb.store import Following, extend

        self._require_now("update")
        following = self.store.following or Following(lambda _store_id, _url: False)
        try:
            return extend.update(self.store.storage, self.store.manifest, following, base)
        finally:
            self.refresh()

    def publish(  # noqa: PLR0913 - where to, what of it, whose work, and who watches
        self,
        url: str,
        *,
        include: Sequence[str] = INCLUDED,
        credit: Credits | None = None,
        dataset: str | None = None,
        data_root: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        announce: Callable[[Plan], bool] = lambda _: True,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Publication | None:
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
            progress: hears how much of how much is done.

        Raises:
            AlreadyExistsError: the destination holds something else.
            InvalidInputError: something to include that there is not, a read-only destination, models left
                out, or an older snapshot than is there.
            NotEnoughModelsError: the store has neither models nor imported scores.
            StorageError: the destination refused, or a segment is not intact; readers see nothing new.
        """
        from memdb.sharing import publish as publication
        from memdb.storage import open_storage

        if self._exclude:
            raise InvalidInputError(
                f"cannot publish {self.url} without some models: nobody would see that they are missing",
                hint="withdraw them with `memdb retract`, which is on record, or publish all",
            )
        target = open_storage(url, storage_options)
        wanted = publication.plan(
            self.store, self.snapshot, target, include, credit, lambda: self._pictures(data_root, dataset)
        )
        there = wanted.before.snapshot if wanted.before else None
        if self._as_of is not None and there is not None and there.n_models > self.n_models:
            raise InvalidInputError(
                f"{url} has {there.n_models:,} models already, snapshot {self._as_of} only {self.n_models:,}",
                hint="publish it to a new place, or leave --snapshot out",
            )
        if not announce(wanted):
            return None
        return publication.carry_out(wanted, self.relations(), progress)

    def report(
        self,
        path: str | Path,
        *,
        level: float = 0.95,
        pictures: bool = True,
        dataset: str | None = None,
        data_root: str | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> WrittenReport:
        """Write one HTML file that shows the store in any browser, without a network.

        Pictures are a published copy's thumbnails, or made from the data set, which is loaded as by
        `load_dataset`. Without them the report is written all the same, and says why it has none; where
        ``dataset`` or ``data_root`` is given, they are required.

        Raises:
            InvalidInputError: scores that were imported, which have no counts to show, a path that does not
                end in .html, or a level that is not one.
            StorageError: the file could not be written.
        """
        from memdb.look.report import write_report

        if self.imported_scores is not None:
            raise InvalidInputError(
                "a report shows counts of models, and imported scores have none",
                hint="write their list: memdb top-memorized -o scores.csv",
            )
        found: Mapping[str, PicturesOf] = {}
        reason = ""
        if pictures:
            try:
                found = self._pictures_of_report(data_root, dataset)
            except MemdbError as error:
                if dataset is not None or data_root is not None:
                    raise
                reason = str(error)
        report = write_report(Path(path), self.relations(), level, found, progress)
        return replace(report, without_pictures=reason)

    def _pictures_of_report(self, data_root: str | None, dataset: str | None) -> Mapping[str, PicturesOf]:
        from memdb.look.sheets import PicturesOf, require_pillow

        require_pillow()
        names = [item.name for item in self.store.manifest.sets if item.n_examples]
        if self.store.published is not None and self.store.published.thumbnails is not None:
            shapes = {name: self.thumbnails(name, [0]).shape for name in names}
            return {
                name: PicturesOf((shape[1], shape[2], shape[3]), partial(self.thumbnails, name))
                for name, shape in shapes.items()
            }
        made = self._pictures(data_root, dataset)
        return {name: PicturesOf(made[name].shape[1:], made[name].chosen) for name in names}

    def load_dataset(self, data_root: str | None = None, dataset: str | None = None) -> Dataset:
        """Load the examples themselves, which a store does not keep, from the folder that holds them.

        Raises:
            UnnamedCodeError: the store's data set is code, and neither ``dataset`` nor you before named it.
            InvalidInputError: the data set cannot be loaded by its name.
            NotFoundError: the data is not in ``data_root``.
        """
        from memdb import datasets

        if dataset is None and self._dataset is not None:
            return self._dataset
        Names(dataset).require_for(self.store, "loading its examples", ("dataset",))
        name = self.store.manifest.dataset if dataset is None else dataset
        if name == IN_MEMORY:
            raise InvalidInputError(
                f"{self.url} was made of arrays in memory, which a store does not keep",
                hint="train from Python: memdb.open(url).train(add=100, dataset=..., recipe=...)",
            )
        data = datasets.load(name, data_root)
        if name == self.store.manifest.dataset:
            self._dataset = data
        return data

    def _pictures(self, data_root: str | None, dataset: str | None) -> Mapping[str, Thumbnails]:
        """Return pictures of the examples, for which the data set is loaded by its name."""
        from memdb.sharing.thumbnails import thumbnails_of

        if self.store.published is not None:
            raise InvalidInputError(
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
            raise InvalidInputError(
                f"cannot {verb} snapshot {self._as_of}", hint="open the store without as_of"
            )
        if self._exclude:
            raise InvalidInputError(
                f"cannot {verb} without some models", hint="open the store without exclude"
            )

    def _wanted(
        self, add: int | None, seeds: Sequence[int] | None, task_id: str | int | None, *, endless: bool
    ) -> Seeds:
        """Return the seeds of the models to train: random ones, a task's, or those given."""
        if (add is not None or endless) == (seeds is not None) or (seeds is not None and task_id is not None):
            raise InvalidInputError(
                "train takes either a number of models or their seeds", hint="give one of them"
            )
        from memdb.format import subsets
        from memdb.training.loop import require_positive
        from memdb.training.seeds import Seeds, random_seeds, require_seeds, task_seeds

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
        self, given: str | Dataset | None, data_root: str | None, *, here: bool
    ) -> str | Dataset:
        """Return the data, or its name, by which workers load it themselves."""
        from memdb import datasets

        if isinstance(given, datasets.Dataset):
            return given
        name = self.store.manifest.dataset if given is None else given
        return self.load_dataset(data_root, given) if here or name == IN_MEMORY else name

    def _bound(self, recipe: Any, version: str | None) -> BoundRecipe:
        from memdb import recipes

        theirs = self.store.manifest.recipe
        if isinstance(recipe, recipes.BoundRecipe):
            return recipe
        if recipe is not None and not isinstance(recipe, str):
            return recipes.bind(recipe, version=version, wanted=theirs.fingerprint)
        if recipe is not None and (version is not None or recipe != theirs.imports):
            return recipes.resolve(recipe, {}, version, self.store.manifest.dataset)
        if version is not None:
            raise InvalidInputError(f"recipe_version {version!r} is of no recipe", hint="give the recipe too")
        return recipes.rebind(theirs)

    def _doubt(self, recipe: BoundRecipe) -> str:
        """Return a remark where the recipe's source is another one than that of models that are there."""
        from memdb.training.loop import SOURCE

        if recipe.info.fingerprint != self.store.manifest.recipe.fingerprint:
            return ""  # which is refused later
        return recipe.change_since(model.versions.get(SOURCE) for _, model in self.snapshot.models)

    @cached_property
    def _results(self) -> Results:
        from memdb.query.results import Results

        return Results()

    def _present(self, table: pa.Table) -> DuckDBPyRelation:
        return self._results.present(table)
