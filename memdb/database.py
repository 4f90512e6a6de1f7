"""`Database`: an open store, with the verbs of the command line as methods.

Each method imports what it needs when it is called, so that a question does not import what trains or
publishes.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from memdb.errors import InvalidInputError, MemdbError, NotFoundError
from memdb.format import layout
from memdb.format.published import INCLUDED
from memdb.permission import Names
from memdb.query.examples import (
    ExampleNames,
    TargetNames,
    find_one,
    find_pair,
    require_examples,
    require_labels,
)
from memdb.query.intervals import IntervalSpec, require_level
from memdb.query.options import MAX_PAIRS, TIMEOUT_SECONDS, Estimator, Order, RankedQuery, StatementLimits
from memdb.store.grace import GRACE
from memdb.wording import count

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from types import TracebackType

    import numpy as np
    import pyarrow as pa
    from duckdb import DuckDBPyRelation
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from memdb.analysis.attribution.estimates import Attribution
    from memdb.analysis.near_duplicates.duplicates import Sources
    from memdb.analysis.near_duplicates.wanted import DuplicateOptions
    from memdb.datasets import Dataset
    from memdb.datasets.appearance import Contents
    from memdb.experiment.removal import LookAlikes
    from memdb.experiment.report import Findings
    from memdb.experiment.run import HowToTrain
    from memdb.format.published import Credits
    from memdb.format.score_table import ScoreTable
    from memdb.format.snapshot_record import BaseUpdate, Retraction
    from memdb.interop.export import Exported
    from memdb.look.exhibits import Gallery, GalleryOptions
    from memdb.look.portrait import Portrait
    from memdb.look.report import WrittenReport
    from memdb.look.view import Viewer
    from memdb.query.answers import Answers
    from memdb.query.imported_scores import TableRelations
    from memdb.query.informed.predictions import InformedAnswers
    from memdb.query.informed.predictor import Predictor
    from memdb.query.informed.screened import ScreenedAnswers
    from memdb.query.options import PairOptions
    from memdb.query.relations import Relations
    from memdb.query.results import Results
    from memdb.recipes import BoundRecipe
    from memdb.render.sheets import ShownOf
    from memdb.sharing.publish import Publication, PublicationOptions, PublicationPlan
    from memdb.sharing.thumbnails import Thumbnails, Words
    from memdb.storage.protocol import Storage
    from memdb.store import Access, Snapshot, Store
    from memdb.store.maintenance.compact import Compaction
    from memdb.store.maintenance.gc import Garbage
    from memdb.store.maintenance.repair import Repair
    from memdb.store.maintenance.verify_report import Report
    from memdb.training.run import TrainingStatus
    from memdb.training.seeds import Seeds

IN_MEMORY = "in-memory"
FIXED = ("test_id", "train_id", "target_id")


@dataclass(frozen=True)
class View:
    """What answers are of: a store's newest models unless something else is asked for; see `memdb.open`."""

    as_of: int | None = None
    exclude: tuple[str, ...] = ()
    scores: str | None = None
    assume: tuple[int, float] | None = None


class Database:
    """An open store: ask it questions, add models to it, maintain and share it.

    Get one from `memdb.open`, `memdb.init` or `memdb.import_file`. Answers describe the models that were in
    the store when it was opened, until `refresh`.

    **Answers.** A question returns a DuckDB relation whose rows are already computed: convert it with
    ``.df()``, ``.arrow()``, ``.pl()`` or ``.fetchall()``. Each score comes with an interval, ``lo`` to
    ``hi``, and with the counts behind it: ``n_in`` models whose subset contains the training example and
    ``n_out`` whose does not. Scores lie in [-1, 1]; they are NULL where ``n_in`` or ``n_out`` is 0.

    **Outcomes.** ``outcome`` is what is averaged over models: ``correct``, 0 or 1, or ``confidence``, the
    probability that a model gives to the label. Columns ``k_in`` and ``k_out`` count correct models; ``s_in``
    and ``s_out`` sum confidences, ``q_in`` and ``q_out`` their squares.

    **Intervals.** ``level`` is their coverage, in [0.5, 1), and ``interval`` their kind: ``fixed`` for one
    score at a number of models fixed beforehand, ``anytime`` for one score that is looked at while models are
    added, ``selected`` for the rows of a list that are shown because they rank first, ``simultaneous`` for
    all ranked scores at once. Named scores take all kinds but ``selected``.

    **Examples** are named by keyword (see `memdb.query.examples.ExampleNames`), by row or by key:
    ``test_id=340`` or ``test_key="test/340.png"``.

    **Imported scores.** A store may hold score tables, scores without models. If the store has no models and
    one table, or if a table is named when the store is opened, then lists, scores, pairs, SQL and comparisons
    answer from that table.

    All errors are subclasses of `memdb.errors.MemdbError`, with a ``hint``. Questions raise
    `NotEnoughModelsError` for a store that has no models yet, and `InvalidInputError` for invalid arguments.
    """

    def __init__(
        self,
        store: Store,
        dataset: Dataset | None = None,
        recipe: BoundRecipe | None = None,
        *,
        view: View = View(),
    ) -> None:
        self.store = store
        self.view = view
        self._dataset = dataset
        self._recipe = recipe
        self._relations: dict[str, Relations] = {}
        self._contents: Contents | None = None
        self._predictors: dict[Path | None, Predictor] = {}
        self._informed: dict[Path | None, InformedAnswers] = {}

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
        """The path or URL of the store."""
        return self.store.url

    @cached_property
    def snapshot(self) -> Snapshot:
        """The models that answers describe."""
        from memdb.store.model_ids import exclude_models

        return exclude_models(self.store.snapshot(self.view.as_of), self.view.exclude)

    def relations(self, outcome: str = "correct") -> Relations:
        """Return the snapshot as DuckDB relations for an outcome.

        Raises:
            InvalidInputError: an unknown outcome.
        """
        from memdb.query.outcomes import require_outcome
        from memdb.query.relations import Relations

        if outcome not in self._relations:
            self._relations[outcome] = Relations(self.snapshot, require_outcome(outcome))
        return self._relations[outcome]

    def score_tables(self) -> list[ScoreTable]:
        """Return the descriptions of the store's score tables, in order of import."""
        return self.store.score_tables()

    def thumbnails(self, set_name: str, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Return thumbnails of examples of a published copy, uint8 [rows, height, width, channels].

        Args:
            set_name: ``train`` or ``test``.
            rows: rows of the set.

        Raises:
            NotFoundError: the copy has no thumbnails, or no such set or row.
        """
        from memdb.store.thumbnails import read_thumbnails

        return read_thumbnails(self.store, set_name, rows)

    @cached_property
    def imported_scores(self) -> TableRelations | None:
        """The score table that answers questions (see `imported_scores.chosen`); None if models do."""
        from memdb.query.imported_scores import Assumed, chosen

        assumed = None if self.view.assume is None else Assumed(*self.view.assume)
        return chosen(self.store, self.snapshot, self.view.scores, assumed)

    def answers(self, outcome: str = "correct") -> Answers:
        """Return the source of answers about scores: the imported scores in use, or else the models.

        Raises:
            InvalidInputError: an unknown outcome, or options that imported scores do not support.
            NotFoundError: there are no imported scores of the name that the store was opened with.
        """
        from memdb.query.imported_scores import ScoreAnswers
        from memdb.query.questions import ModelAnswers

        if self.imported_scores is not None:
            return ScoreAnswers(self.imported_scores)
        return ModelAnswers(self.relations(outcome))

    def relations_in(
        self,
        statement: str,
        outcome: str = "correct",
        *,
        estimator: str = "raw",
        screen_by: str | Path | None = None,
        memory: int | None = None,
    ) -> Relations:
        """Return the relations that answer and, beside them, those of the score tables a statement names.

        Raises:
            NotFoundError: the store has no models and several score tables, of which none is named.
        """
        from memdb.query.imported_scores import attach, named_in, with_table

        tables = self.store.score_tables() if "." in statement else []
        named = named_in(statement, tables)
        try:
            relations = self._naming(estimator, screen_by, outcome).relations
        except NotFoundError:
            if not named or estimator != "raw":
                raise
            relations = self.relations(outcome)
        relations.memory = memory or relations.memory
        for table in named:
            attach(relations, with_table(self.snapshot, tables, table))
        return relations

    def _require_classes(
        self, answers: Answers | InformedAnswers | ScreenedAnswers, *, same_class: bool
    ) -> None:
        """Check that a source of answers knows the classes, if they are asked for."""
        if same_class:
            require_labels(self.snapshot, are_labelled=answers.relations.are_labelled)

    def screened(self, estimator: Estimator, outcome: str = "correct") -> ScreenedAnswers:
        """Return the source of tests of the pairs alone that a prior ranks first.

        Raises:
            InvalidInputError: imported scores answer, or the outcome is another than ``correct``.
            NotFoundError: there is no file of the scores that are the prior.
        """
        from memdb.query.informed.screened import ScreenedAnswers

        return ScreenedAnswers(self.relations(), self._predictor(estimator.screen_by, outcome), estimator)

    def predictions(self, estimator: Estimator, outcome: str = "correct") -> InformedAnswers:
        """Return the source of calibrated predictions.

        Raises:
            InvalidInputError: imported scores answer, or the outcome is another than ``correct``.
            NotFoundError: there is no file of the scores that are the prior.
        """
        from memdb.query.informed.predictions import InformedAnswers
        from memdb.query.informed.relations import InformedRelations

        predictor, file = self._predictor(estimator.screen_by, outcome), estimator.screen_by
        if file not in self._informed:
            self._informed[file] = InformedAnswers(InformedRelations(self.relations(), predictor))
        return self._informed[file]

    def _ranking(
        self, kind: str, screen: int | str | None, screen_by: str | Path | None, outcome: str
    ) -> Answers | InformedAnswers | ScreenedAnswers:
        """Return the source of lists that arguments ask for."""
        estimator = Estimator(kind, screen, None if screen_by is None else Path(screen_by))
        if estimator.screen is not None:
            return self.screened(estimator, outcome)
        return self.predictions(estimator, outcome) if kind == "informed" else self.answers(outcome)

    def _naming(self, kind: str, screen_by: str | Path | None, outcome: str) -> Answers | InformedAnswers:
        """Return the source of named scores that arguments ask for."""
        estimator = Estimator(kind, None, None if screen_by is None else Path(screen_by))
        return self.answers(outcome) if estimator.is_plain else self.predictions(estimator, outcome)

    def estimator_facts(
        self,
        *,
        estimator: str = "informed",
        screen: int | str | None = None,
        screen_by: str | Path | None = None,
    ) -> dict[str, Any]:
        """Return what an estimator rests on, as the commands show it beside an answer.

        Of predictions: ``prior``, in words; ``n_sketched`` models; ``prior_gain``, the share of the variance
        of the true influences that the prior explains in models that it has not seen; ``prior_spread``, the
        standard deviation of the truth about the prior. Where the answer is the raw estimate, ``estimator``
        is ``raw`` and ``why_raw`` says why. Of screenings: the models behind the prior and those that test.

        Raises:
            InvalidInputError: an unknown estimator, imported scores, or a screening of predictions.
            NotFoundError: there is no file of the scores that are the prior.
        """
        from memdb.query.informed.predictions import InformedAnswers
        from memdb.query.informed.screened import ScreenedAnswers

        answers = self._ranking(estimator, screen, screen_by, "correct")
        if isinstance(answers, InformedAnswers | ScreenedAnswers):
            return dict(answers.facts)
        return {"estimator": "raw"}

    def _predictor(self, file: Path | None, outcome: str) -> Predictor:
        if self.imported_scores is not None or outcome != "correct":
            what = "imported scores" if outcome == "correct" else f"the outcome {outcome}"
            raise InvalidInputError(
                f"priors are of the outcome correct of the store's own models, not of {what}",
                hint="omit estimator and screen",
                parameter=("estimator", "screen"),
            )
        if file not in self._predictors:
            from memdb.query.informed.predictor import Predictor

            given = None
            if file is not None:
                from memdb.interop.prior_scores import read_scores

                manifest = self.store.manifest
                shape = manifest.train.n_examples, manifest.set_named(layout.TEST).n_examples
                given = read_scores(file, shape)
            self._predictors[file] = Predictor(self.relations(), given, str(file))
        return self._predictors[file]

    @property
    def n_models(self) -> int:
        """The number of models that answers describe."""
        return self.snapshot.n_models

    @property
    def models_sha256(self) -> str:
        """A hash of the sorted ids of these models: with equal hashes, answers are equal."""
        return self.snapshot.models_sha256

    def refresh(self) -> None:
        """Reload the store, so that answers include models committed since it was opened."""
        self.close()

    def close(self) -> None:
        """Close the DuckDB connections. A later question opens new ones on the then newest models."""
        for relations in self._relations.values():
            relations.close()
        for answers in self._informed.values():
            answers.relations.close()
        for kept in (self._relations, self._predictors, self._informed):
            kept.clear()
        if self.__dict__.get("imported_scores") is not None:
            self.__dict__["imported_scores"].close()
        for name in ("snapshot", "imported_scores"):
            self.__dict__.pop(name, None)

    def info(
        self, *, outcome: str = "correct", level: float = 0.95, interval: str = "anytime"
    ) -> DuckDBPyRelation:
        """Return one row about the store: its data, recipe, models, accuracies and widths of intervals.

        ``mean_half_width`` is the mean half-width of the memorization intervals over examples that have one.
        What needs models is NULL without any.

        Raises:
            InvalidInputError: an unknown outcome or interval, or a level out of range.
        """
        from memdb.query.questions import info

        spec = IntervalSpec(interval, level)
        return self._present(info(self.relations(outcome), spec), outcome, level, interval)

    def top_memorized(
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

        The memorization of an example is the mean outcome on it of the models trained on it, minus that of
        the models not trained on it.

        Args:
            k: the number of rows.
            class_name: rank only the examples of this class, given by name or number.
            order: ``shrunk`` (posterior mean), ``memorization``, ``q_value`` or ``lo``.
            fdr: q-values for a list looked at ``once``, or ``anytime`` while models are added.
            ranks: add ``rank_lo`` and ``rank_hi``, simultaneous bounds on the true ranks of the rows.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: an unknown class, order, outcome or interval, or k or level out of range.
        """
        from memdb.query.naming import named

        query = RankedQuery(k, Order(order, "helps", fdr, ranks), IntervalSpec(interval, level))
        rows = self.answers(outcome).top_memorized(class_name, query)
        return self._present_scores(named(self.answers(outcome).relations, rows), outcome, level, interval)

    def top_influence(
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
        estimator: str = "raw",
        screen: int | str | None = None,
        screen_by: str | Path | None = None,
        **example: Unpack[ExampleNames],
    ) -> DuckDBPyRelation:
        """Return the k strongest influences with one side fixed (Feldman and Zhang 2020, equation 2).

        The influence of a training example on a target is the mean outcome on the target of the models
        trained on the example, minus that of the models not trained on it.

        Args:
            k: the number of rows.
            direction: rank by influence that ``helps``, that ``hurts``, or ``both`` by absolute value.
            same_class: rank only pairs with equal labels.
            order: ``shrunk`` (posterior mean), ``influence``, ``q_value`` or ``lo``.
            fdr, ranks: see `top_memorized`.
            estimator: ``raw``, the difference in means, or ``informed``: lists go by the calibrated
                prediction, the column ``informed``, and ``lo`` to ``hi`` is its interval
                (see `estimator_facts`).
            screen: test only this many pairs, those that a prior ranks first; ``auto`` for one in ten models.
                Rows go by their q-values, and all of their columns are of the models that the prior does not
                come from.
            screen_by: a file of scores [train, test] that is the prior in place of gradient sketches: .npy,
                .npz, .csv or .parquet. It must not come from the store's own models.
            example: the fixed side, exactly one of ``test_id`` (list the training examples that influence
                this test example), ``train_id`` (list the test examples that this training example
                influences) and ``target_id`` (list the training examples that influence this training
                example), or its key.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: not exactly one example is named, or an argument is invalid.
            NotFoundError: no example has the key.
        """
        from memdb.query.naming import named

        relations = self.answers(outcome).relations
        fixed = find_one(relations, example, FIXED)
        if fixed.column == "train_id":
            require_examples(relations.snapshot, layout.TEST)
        query = RankedQuery(k, Order(order, direction, fdr, ranks), IntervalSpec(interval, level))
        answers = self._ranking(estimator, screen, screen_by, outcome)
        self._require_classes(answers, same_class=same_class)
        rows = answers.top_influence(fixed, query, same_class=same_class)
        listed = "test_id" if fixed.column == "train_id" else "train_id"
        return self._present_scores(named(relations, rows, listed), outcome, level, interval)

    def score(
        self,
        train_id: int | None = None,
        *,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "anytime",
        estimator: str = "raw",
        screen_by: str | Path | None = None,
        **examples: Unpack[TargetNames],
    ) -> DuckDBPyRelation:
        """Return the memorization of a training example, or its influence on a target if one is named.

        Args:
            train_id: the training example, unless ``train_key`` names it.
            estimator, screen_by: see `top_influence`; predictions are of influences on test examples.
            examples: the target, ``test_id`` or ``target_id`` (a training example), or its key.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: no training example or several targets are named, or an argument is invalid.
            NotFoundError: no example has the key.
        """
        from memdb.query.naming import named_pair

        train, target = find_pair(self.answers().relations, {"train_id": train_id, **examples})
        answers = self._naming(estimator, screen_by, outcome)
        rows = answers.score(train, target, IntervalSpec(interval, level))
        return self._present_scores(
            named_pair(self.answers(outcome).relations, rows), outcome, level, interval
        )

    def memorization(
        self,
        train_id: int | None = None,
        *,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "anytime",
    ) -> DuckDBPyRelation:
        """Return the memorization of all training examples, or of one, by ascending ``train_id``.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: an id out of range, or an invalid outcome, level or interval.
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
        """Return the influences on a test example, of a training example, or of one pair, by ascending ids.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: no example is named (use `pairs` to search all), or an argument is invalid.
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
        """Return the influences of training examples on training examples (``target_id``), by ascending ids.

        The influence of an example on itself is its memorization.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: no example is named, or an argument is invalid.
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
        answers = self.answers(outcome)
        self._require_classes(answers, same_class=same_class)
        rows = answers.scores(relation, ids, spec, same_class=same_class)
        return self._present_scores(rows, outcome, spec.level, spec.kind)

    def counts(
        self, *, test_id: int | None = None, target_id: int | None = None
    ) -> dict[str, NDArray[np.int32]]:
        """Return the raw counts behind scores, int32 [train] each; zeros if there are no models.

        ``n_in`` and ``n_out`` count the models whose subset contains each training example, and those whose
        does not; ``k_in`` and ``k_out`` count the models among them that are correct on the target: the test
        example ``test_id``, the training example ``target_id``, or by default each example itself.

        Raises:
            InvalidInputError: two targets, or an id out of range.
        """
        from memdb.query.questions import counts

        return counts(self.relations(), {"test_id": test_id, "target_id": target_id})

    def pairs(
        self,
        *,
        outcome: str = "correct",
        output: str | Path | None = None,
        estimator: str = "raw",
        screen: int | str | None = None,
        screen_by: str | Path | None = None,
        **options: Unpack[PairOptions],
    ) -> DuckDBPyRelation:
        """Search all (training, test) pairs for strong influences: by test id, then from the strongest.

        Args:
            estimator, screen_by: see `top_influence`; ``top`` and ``min_influence`` go by the prediction.
            screen: test only this many pairs, those that a prior ranks first, and return all of them from the
                smallest q-value; ``auto`` for one a model.
            output: write to this .parquet file. An interrupted search resumes when called again.
            options: ``top`` pairs of each test example, those at or above ``min_influence``, or both; see
                `memdb.query.options.PairOptions` for all.

        Returns:
            The pairs found; with ``output``, the rows of the file, read lazily.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: neither ``top`` nor ``min_influence`` is given, or an option is invalid.
            StorageError: the file cannot be written; the pairs found so far are kept beside it.
        """
        answers = self._ranking(estimator, screen, screen_by, outcome)
        self._require_classes(answers, same_class=options.get("same_class", False))
        if output is not None and (estimator != "raw" or screen is not None):
            raise InvalidInputError(
                f"pairs chosen by a prior are not written to {output} in parts",
                hint="write the relation: .to_parquet(path)",
                parameter="output",
            )
        if output is None:
            asked = outcome, options.get("level", 0.95), options.get("interval", "selected")
            return self._present_scores(answers.pairs(options), *asked)
        if self.imported_scores is not None:
            raise InvalidInputError("imported pairs are few", hint="write the relation: .to_parquet(path)")
        from memdb.query.pairs.parquet import written_pairs

        written_pairs(self.relations(outcome), Path(output), options)
        return self._results.in_file(Path(output))

    def duplicates(self, **options: Unpack[DuplicateOptions]) -> DuckDBPyRelation:
        """Return near-duplicates within the training set, and of a training and a test example.

        A row says what the training example ``train_id`` does for a target, another training example
        (``target_id``) or a test example (``test_id``): ``influence``, over the models that hold it out. Two
        training examples have a row each way. ``memorization`` is the target's, and ``pair_memorization`` the
        same without models that saw the twin alone, so that it hides nothing; ``hidden_by`` names the twin
        where it surely hides some. The surest pairs come first.

        Args:
            options: see `memdb.analysis.near_duplicates.wanted.DuplicateOptions`.

        Raises:
            InvalidInputError: an option out of range, or a store of imported scores alone.
            NotEnoughModelsError: no models, or too few to find pairs by influence if nothing else is asked.
            NotFoundError: the store keeps no outcomes on training examples, or what ``by="content"`` needs is
                missing.
        """
        from memdb.analysis.near_duplicates.duplicates import duplicates
        from memdb.analysis.near_duplicates.wanted import wanted_of

        if self.imported_scores is not None:
            raise InvalidInputError(
                f"{self.url} answers from imported scores, which say nothing of models without two examples",
                hint="train models on the same data with `memdb init` and `memdb train`",
            )
        wanted, remark = wanted_of(options), options.get("remark", warnings.warn)
        interval = IntervalSpec(options.get("interval", "selected"), options.get("level", 0.95))
        sources = self._contents_to_compare(options, remark)
        rows = duplicates(self.relations(), wanted, interval, sources)
        return self._present_scores(rows, "correct", interval.level, interval.kind)

    def _contents_to_compare(self, options: DuplicateOptions, remark: Callable[[str], None]) -> Sources:
        """Return what is known of the examples' content: their hashes and, where there are any, pictures."""
        from memdb.analysis.near_duplicates.duplicates import Sources
        from memdb.store.examples import read_example_table

        named = options.get("data_root"), options.get("dataset")

        def pictures() -> Callable[[str, Sequence[int]], Sequence[Any]] | None:
            content, reason = self.contents_if_any(*named)
            if content is None:
                remark(f"only examples of equal content count as alike: {reason}")
                return None
            if self.store.published is not None and named == (None, None):
                return lambda name, rows: list(self.thumbnails(name, rows))
            return lambda name, rows: [content(name, row) for row in rows]

        return Sources(
            lambda name: read_example_table(self.store, name).content_sha256,
            pictures,
            remark,
            options.get("progress", lambda _done, _total: None),
        )

    def sql(
        self,
        statement: str,
        *,
        k: int | None = None,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "anytime",
        estimator: str = "raw",
        screen_by: str | Path | None = None,
        max_pairs: int = MAX_PAIRS,
        timeout: float = TIMEOUT_SECONDS,
    ) -> DuckDBPyRelation:
        """Run one SQL statement over the relations, without access to files, network or settings.

        Each score table has the relations ``NAME.memorization`` and ``NAME.influence`` besides.

        DuckDB enforces the limits: 4 GB bound its buffers but not the memory of lists and strings, and a
        timeout takes effect between two of its tasks. For SQL that you do not trust, use `memdb sql`, which
        runs it in a separate process.

        Args:
            statement: a SELECT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN.
            k: return only the first k rows.
            estimator, screen_by: see `top_influence`; `influence` and `influence_of` get the column
                ``informed``, and ``lo`` to ``hi`` is its interval.
            max_pairs: how many pairs the statement may count.
            timeout: seconds that it may run.

        Raises:
            InvalidInputError: SQL that cannot run, counts too many pairs, or times out.
        """
        from memdb.query.questions import sql

        relations = self.relations_in(statement, outcome, estimator=estimator, screen_by=screen_by)
        spec = IntervalSpec(interval, level)
        return self._present(sql(relations, statement, spec, k=k, limits=StatementLimits(max_pairs, timeout)))

    def plan(
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
        """Return the models that each goal takes, how many are missing, and the seconds to train them.

        One row per goal. ``worst_case``: any score has this half-width. With at least 50 models, at the
        store's own rates: ``median`` and ``percentile_95``, half or 95 % of the scores of ``kind`` have it;
        ``settled``, the fraction ``settle`` of the examples above ``threshold`` has its interval above it.
        For a named score: ``named_half_width``, it has this half-width; ``named_from_zero``, its interval
        excludes 0. Numbers are NULL where 2**30 models would not suffice. `plan_without_store` gives the
        worst case.

        Args:
            half_width: half the width of intervals to reach, in (0, 1).
            kind: ``memorization`` or ``influence``.
            settle: a fraction of examples, in (0, 1).
            threshold: a score, in (-1, 1).
            k, n_ranked: for ``selected`` and ``simultaneous`` intervals, the rows shown and the scores
                ranked, by default all training examples.
            examples: a score to plan for, named as in `score`.

        Raises:
            InvalidInputError: an argument out of range.
            NotEnoughModelsError: a score is named, and there are fewer than 50 models to know its rates from.
            NotFoundError: no example has the key.
        """
        from memdb.analysis.plan import Goal, plan

        goal = Goal(half_width, kind, settle, threshold, k, n_ranked)
        goal.require()
        named = None
        if any(value is not None for value in examples.values()):
            named = find_pair(self.answers().relations, examples)
        rows = plan(self.relations(outcome), goal, IntervalSpec(interval, level), named)
        return self._present(rows, outcome, level, interval)

    def convergence(
        self,
        train_id: int | None = None,
        *,
        looks: Sequence[int] | None = None,
        outcome: str = "correct",
        level: float = 0.95,
        **examples: Unpack[TargetNames],
    ) -> DuckDBPyRelation:
        """Return one score as models were added, in order of commit, with its fixed and anytime intervals.

        Args:
            train_id: the training example, unless ``train_key`` names it.
            looks: the numbers of models to compute the score at, by default 10, 20, 50, 100, ... and all.
            examples: the target, as in `score`.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: no training example or several targets are named, or an argument is invalid.
            NotFoundError: no example has the key.
        """
        from memdb.analysis.convergence import convergence

        train, target = find_pair(self.answers().relations, {"train_id": train_id, **examples})
        rows = convergence(self.relations(outcome), train, target, level, looks)
        return self._present(rows, outcome, level, "fixed,anytime")

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
        """Return the split-half reliability of memorization, or of the influence on a test example.

        One row per measure, with its mean, minimum and maximum over random splits of the models into halves:
        ``correlation`` of the scores of both halves; ``spearman_brown``, the correlation that it predicts for
        two stores of this size; ``confirmed``, the fraction of the examples at or above the threshold in one
        half that are so in the other; ``top_overlap``, the Jaccard index of the first k of both. The same
        models and ``seed`` give the same answer.

        Args:
            test_id: measure the influence on this test example instead of memorization.
            k: lengths of lists, by default 10, 100 and 1000.
            splits: the number of random splits.
            seed: of the splits, in [0, 2**64).
            threshold: by default 0.25 for memorization and 0.15 for influence.

        Raises:
            NotEnoughModelsError: fewer than four models.
            InvalidInputError: an argument out of range.
        """
        from memdb.analysis.reliability import LISTS, Splitting, reliability

        target = None if test_id is None else find_one(self.relations(), {"test_id": test_id}, ("test_id",))
        splitting = Splitting(splits, seed, tuple(k or LISTS), threshold)
        rows = reliability(self.relations(outcome), target, splitting, given=k is not None)
        return self._present(rows, outcome)

    def classes(self, *, threshold: float = 0.25, outcome: str = "correct") -> DuckDBPyRelation:
        """Return one row per class, the hardest to learn first.

        ``consistency`` is the mean outcome on the training examples of a class of the models not trained on
        them, and ``train_rate`` that of the models trained on them; ``memorization`` is the mean score,
        ``n_memorized`` the number of examples at or above the threshold, ``test_rate`` the mean outcome on
        test examples.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: an argument out of range.
        """
        from memdb.analysis.classes import classes

        return self._present(classes(self.relations(outcome), threshold), outcome)

    def class_influence(self, *, outcome: str = "correct") -> DuckDBPyRelation:
        """Return the mean influence of each class of training examples on each class of test examples.

        ``null_se`` is the standard deviation of the null distribution of the mean, ``q_value`` the false
        discovery rate over all pairs of classes.

        Raises:
            NotEnoughModelsError: fewer than two models.
            NotFoundError: the store has no test examples.
        """
        from memdb.analysis.classes import class_influence

        return self._present(class_influence(self.relations(outcome)), outcome)

    def compare(
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
        """Return the k examples on which two stores of one data set differ most, and measures of agreement.

        ``difference`` is this store's score minus the other's, with the interval ``lo`` to ``hi``, which is
        valid whatever models the stores share. Equal in every row: ``jaccard``, of the examples at or above
        the threshold; ``top_overlap``, the Jaccard index of the first k of both; ``spearman``;
        ``mean_difference``; and what the stores have in common. Counts of the stores are never added.

        Args:
            other: the other store.
            test_id: compare the influence on this test example instead of memorization.
            k: the number of rows.
            threshold: by default 0.25 for memorization and 0.15 for influence.

        Raises:
            MismatchError: the data sets differ.
            NotEnoughModelsError: a store has no models, or no example has a score in both.
            InvalidInputError: an argument out of range.
        """
        from memdb.analysis.compare import compare

        relations, others = self.answers(outcome).relations, other.answers(outcome).relations
        if test_id is not None:
            relations.row_of(layout.TEST, test_id, None, "test_id")
        return self._present(compare(relations, others, test_id, k, threshold, IntervalSpec(interval, level)))

    def membership(
        self,
        *,
        variant: str = "online",
        variance: str = "auto",
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> DuckDBPyRelation:
        """Run a membership-inference attack (LiRA; Carlini and others 2022) against the store's own models.

        Each model is the target once, and all others are the attacker's shadow models. One row per training
        example, the most exposed first, with its AUC over models; equal in every row, the mean, minimum and
        maximum over targets of ``attack_auc`` and of ``tpr_at_1_in_1000`` and the like, the true-positive
        rate at that false-positive rate.

        Args:
            variant: ``online``, or ``offline``, which uses only models not trained on the example.
            variance: estimated per ``example``, ``pooled`` over examples, or ``auto``: pooled with few
                models.
            progress: called with the number of examples attacked so far and in all.

        Raises:
            NotFoundError: the store does not keep logit confidences.
            NotEnoughModelsError: fewer than eight models.
            InvalidInputError: an unknown variant or variance.
        """
        from memdb.analysis.membership import Attack, membership

        return self._present(membership(self.relations(), Attack(variant, variance), progress))

    def label_errors(
        self,
        k: int = 20,
        *,
        class_name: str | None = None,
        min_memorization: float | None = None,
        level: float = 0.95,
        interval: str = "selected",
    ) -> DuckDBPyRelation:
        """Return the k training examples whose label is most likely wrong, the most suspect first.

        They are those for which more models that were trained without them predict ``suggested_label`` than
        their own label. ``agreement`` is the share of these models that predict it, ``lo`` to ``hi`` its
        interval, ``p_given`` the share that predicts the given label, and ``margin`` the difference; by
        ``shrunk``, the difference if one more model voted for neither, they are ranked.

        Args:
            k: the number of rows.
            class_name: only examples with this label, by name or number.
            min_memorization: only examples with at least this memorization: models that fit what they are
                trained on memorize wrong labels, others do not.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            NotFoundError: the store does not keep the outcome ``prediction``, or no label is suspect.
            InvalidInputError: an unknown class, or k or level out of range.
        """
        from memdb.analysis.label_errors import label_errors
        from memdb.query.naming import named

        spec = IntervalSpec(interval, level)
        rows = label_errors(self.relations(), k, spec, class_name, min_memorization)
        rows = named(self.relations(), rows)
        return self._present(rows, "prediction", level, interval)

    def lds(
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
        """Return the linear datamodeling score (Park and others 2023) of attributions, per test example.

        Equal in every row: ``mean_lds`` with its interval; ``h2``, the share of the outcome's variance over
        all models of the store that is linear in the mask, and the same with permuted masks; ``ceiling``, the
        most that attributions can be expected to score given that; and ``of_ceiling``, the share of it that
        these reach. The last ones are NULL with fewer than 20 models.

        Args:
            scores: attribution scores [test, train]: what `memdb.interop.attributions.open_attributions`
                returns, or any object with ``shape``, ``rows(start, stop)`` and ``place``.
            outcome: ``logit_confidence``, ``margin`` or ``correct``; by default the first that the store
                keeps.
            model_ids: evaluate on these models, by default all. Exclude those that the scores were computed
                from.
            resamples: the number of bootstrap resamples of the models, for intervals.
            seed: of the bootstrap, in [0, 2**64).
            level: of the intervals, in [0.5, 1).
            progress: called with the number of test examples evaluated so far and in all.

        Raises:
            InvalidInputError: scores of another shape or with NaN or infinity, an unknown outcome or model,
                or an argument out of range.
            NotEnoughModelsError: fewer than five models.
        """
        from memdb.analysis.attribution.lds import Bootstrap, lds

        bootstrap = Bootstrap(resamples, seed, require_level(level))
        return self._present(lds(self.relations(), scores, outcome, model_ids, bootstrap, progress))

    def compare_lds(
        self,
        *,
        estimators: Sequence[str] | None = None,
        scores: Mapping[str, Attribution] | None = None,
        pilots: int | None = None,
        tests: int = 500,
        outcome: str | None = None,
        model_ids: Sequence[str] | None = None,
        resamples: int = 200,
        seed: int = 0,
        level: float = 0.95,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> DuckDBPyRelation:
        """Return the mean linear datamodeling score of several estimators, computed from some of the models.

        One row per estimator: its mean score on the other models, with an interval, the share of the ceiling
        that it reaches, and for ``raw`` the ``forecast`` of `plan_lds`. Equal in every row, the ceiling, as
        for `lds`.

        Args:
            estimators: of `memdb.analysis.attribution.estimators.ESTIMATORS`; by default all that the store
                allows.
            scores: somebody's scores, by name, as for `lds`.
            pilots: the number of models that estimators compute from; by default half of them.
            tests: at most this many test examples, drawn at random.
            outcome: as for `lds`.
            model_ids: grade on these models; by default on all but the pilots.
            resamples, seed, level: of the intervals, as for `lds`.
            progress: called with what was done so far and what there is to do.

        Raises:
            InvalidInputError: as for `lds`, or an unknown estimator.
            NotEnoughModelsError: too few models to compute from some and grade on the others.
        """
        from memdb.analysis.attribution.grading import Comparison, compare_lds
        from memdb.analysis.attribution.lds import Bootstrap

        wanted = Comparison(estimators, scores, pilots, model_ids, tests, outcome)
        bootstrap = Bootstrap(resamples, seed, require_level(level))
        return self._present(compare_lds(self.relations(), wanted, bootstrap, progress))

    def frontier(
        self,
        *,
        estimators: Sequence[str] | None = None,
        scores: Mapping[str, Attribution] | None = None,
        models: Sequence[int] | None = None,
        truth: int | None = None,
        k: Sequence[int] = (100, 500),
        tests: int | None = None,
        outcome: str = "correct",
        level: float = 0.95,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> DuckDBPyRelation:
        """Return how good estimates of influence from few models are, by a truth that other models give.

        One row per estimator, number of models and measure: ``correlation`` with the true influences over all
        pairs; ``precision``, how many of the ``at`` strongest pairs are among the first ``at``; ``top_10``,
        the same of the strongest training examples of a test example, mean over those that any influence;
        ``feldman_zhang``, the same of the pairs of one class with influence .15 and memorization .25 or more;
        ``strength``, the mean true influence of the first ``at`` pairs; ``error``, root mean square on the
        strongest pairs; and ``coverage`` of the intervals, of all pairs and of the estimator's own first.
        ``seconds`` is what training these models took, ``plain_models`` how many models raw scores need for
        the same value, at least or at most (``plain_bound``), and ``plain_extrapolated`` how many for a
        correlation that none of the numbers of models looked at has. The estimator ``exact`` is what the true
        influences would score, given that the truth is noisy.

        Args:
            estimators: of `memdb.analysis.attribution.estimators.ESTIMATORS`; by default all that the store
                allows.
            scores: somebody's scores, by name, as for `lds`.
            models: numbers of models to look at; by default 25, 50, 100, ...
            truth: models set apart for the truth; by default two thirds of all.
            k: lengths of the lists of strongest pairs.
            tests: test examples, drawn at random, whose pairs are judged; by default up to 1,000, or as many
                as make eight million pairs.
            outcome: ``correct`` or ``confidence``.
            level: of the intervals, in [0.5, 1).
            progress: called with the number of steps done so far and in all.

        Raises:
            InvalidInputError: an argument out of range, an unknown estimator, or scores of another shape,
                with NaN or infinity, or all equal.
            NotEnoughModelsError: fewer than 50 models.
        """
        from memdb.analysis.attribution.frontier import Wanted, frontier

        wanted = Wanted(estimators, scores, models, truth, tuple(k), tests, require_level(level))
        return self._present(frontier(self.relations(outcome), wanted, progress))

    def plan_lds(self, lds: float, *, outcome: str | None = None, level: float = 0.95) -> DuckDBPyRelation:
        """Return the models from which raw influences are expected to have this linear datamodeling score.

        One row: ``n_models_needed``, NULL where 2**30 models would not suffice; ``n_models_least`` and
        ``n_models_most``, the same at the ends of the interval of `lds`'s ``h2``; how many are missing and
        the seconds to train them; ``lds_now``, what is expected of the present models, and ``ceiling``, of
        any number of them.

        Args:
            lds: the mean score over test examples to reach, in (0, 1).
            outcome: as for `lds`.
            level: of the intervals, in [0.5, 1).

        Raises:
            InvalidInputError: an argument out of range, or an unknown outcome.
            NotEnoughModelsError: fewer than 50 models.
        """
        from memdb.analysis.plan_lds import plan_lds

        return self._present(plan_lds(self.relations(), lds, outcome, require_level(level)))

    def plan_sketches(self, sketches: int = 10, *, size: int | None = None) -> DuckDBPyRelation:
        """Return what it takes until this many models have gradient sketches.

        One row: ``bytes_per_model``, as they are stored or, without any, in memory; ``seconds_per_model`` and
        ``share_of_training``, where this store has batches with and without sketches to compare, NULL
        elsewhere; and what is missing in all, ``n_sketched_more``, ``bytes_more`` and ``seconds_more``.

        Args:
            sketches: the number of sketched models.
            size: numbers per example; by default that of the store's sketches, or 512.

        Raises:
            InvalidInputError: an argument out of range.
        """
        from memdb.analysis.plan_sketches import plan_sketches

        return self._present(plan_sketches(self.snapshot, sketches, size))

    def train(
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
        sketch: int | None = None,
        sketch_size: int | None = None,
        compact: bool = True,
        progress: Callable[[TrainingStatus], None] | bool = True,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> int:
        """Train models on random subsets and commit them batch by batch; return the number committed.

        Args:
            add: the number of models to train, with random seeds.
            seeds: train models with these seeds instead, skipping those already in the store.
            task_id: derive the seeds from this name, so that the same task trains the same models when it is
                run again, skipping those already in the store.
            until_half_width: stop once the mean half-width of the memorization intervals that `info` shows is
                at most this; without ``add``, train as many models as that takes.
            max_seconds: stop after this time; without ``add``, train as many models as it allows.
            dataset: the data set, by name or as a `Dataset`, if the store's name for it does not load it, or
                is code that you have not named before.
            recipe: the recipe, likewise: a name, or any object that fits `Recipe`.
            recipe_version: the version of that recipe, if it declares none, or several.
            data_root: the folder that holds the data.
            device: ``auto``, ``cpu``, ``cuda:0``, ...
            batch_models: models trained at once; by default, the recipe decides.
            workers: train in this many processes: one per GPU, or several that share the cores of the CPU.
            ray: train on a Ray cluster: ``local``, ``auto`` or its address; ``workers`` limits its tasks.
            task_cpus: cores per Ray task.
            task_gpus: GPUs per Ray task, which may be a fraction; by default 1 if the cluster has any.
            checkpoint_dir: a folder for checkpoints of recipes; by default below the home directory.
            sketch: keep gradient sketches of this many more models, or of as many as the store was made to
                sketch, if these are more.
            sketch_size: numbers per example, if the store has no sketches yet; by default 512.
            compact: compact small segments into blocks once there are a few dozen.
            progress: called often with the status of the run; by default, a bar shows it in terminals and
                notebooks, and doubts become Python warnings. False: no bar.
            stop_requested: polled at every step; return True to stop and drop the batch in flight.

        Raises:
            InvalidInputError: neither a number of models nor seeds nor a limit, or more than one of them, an
                argument out of range, or a store that is published, or opened at a snapshot.
            UnnamedCodeError: the store's recipe or data set is code that you have not named.
            NotFoundError: the data is not in ``data_root``.
            MismatchError: the data set or the recipe is not the store's.
            TrainingError: the recipe failed; batches committed before are kept.
            StorageError: a batch could not be committed.
        """
        from memdb.format.sketches import SKETCH
        from memdb.training import engines
        from memdb.training.engines.request import Request
        from memdb.training.loop import require_positive
        from memdb.training.run import Limits, Plan, carry_out
        from memdb.training.sketching import target_of

        self._require_now("train")
        self.store.manifest.require_random(self.url)
        limits = Limits(until_half_width, max_seconds)
        if batch_models is not None:
            require_positive(batch_models, "batch_models")
        wanted = self._wanted(add, seeds, task_id, endless=limits != Limits())
        request = None if ray is None else Request(ray, workers, task_cpus, task_gpus)
        recipe = self._recipe if recipe is None else recipe
        names = Names(self._dataset if dataset is None else dataset, recipe)
        names.require_for(self.store, "training")
        bound = self._bound(recipe, recipe_version)  # before waiting for the data
        target = target_of(self.snapshot, sketch, sketch_size)
        if target is not None:
            bound.require_outcomes([SKETCH])
        work = engines.Work(
            self.store,
            self._data_to_train_on(dataset, data_root, here=workers is None and ray is None),
            bound,
            data_root,
            device,
            batch_models,
            None if checkpoint_dir is None else Path(checkpoint_dir),
            target,
        )
        plan = Plan(engines.choose(work, workers, request), wanted, limits, compact, self._doubt(bound))
        try:
            with _visible(progress) as shown:
                return carry_out(self.store, plan, self.snapshot, shown, stop_requested)
        finally:
            self.refresh()

    def removal_experiment(
        self,
        into: str | Path | Storage = "removal.zarr",
        *,
        thresholds: Sequence[float] | None = None,
        rules: Sequence[str] | None = None,
        controls: Sequence[str] | None = None,
        add_back: bool | None = None,
        fraction: float | None = None,
        scores_from: Database | None = None,
        models: int | None = None,
        add: int | None = None,
        seed: int | None = None,
        level: float = 0.95,
        access: Access | None = None,
        progress: Callable[[TrainingStatus], None] | None = None,
        comparing: Callable[[int, int], None] = lambda _done, _total: None,
        stop_requested: Callable[[], bool] = lambda: False,
        **how: Unpack[HowToTrain],
    ) -> Findings:
        """Remove the memorized training examples, train models on the rest, and compare what that costs.

        As many models exclude as many random examples, and as many examples of the same classes that
        held-out models find as hard. The models go into a store of their own, in which what is removed is
        written down before the first is trained. Call it again after an interruption, or for more models:
        they are added to what is there.

        Args:
            into: the experiment's own store: a path, a URL, or anything that fits `Storage`.
            thresholds: on memorization; examples at or above one are removed. By default .1, .25 and .5.
            rules: what must reach a threshold: ``raw`` scores (the default), the ``lower`` ends of their
                simultaneous intervals, ``shrunk`` scores, or several.
            controls: what is removed instead: ``random``, ``matched``, or both, as by default.
            add_back: also add each slice between two thresholds to the examples below the lowest.
            fraction: train on a random share of what is left, in place of all of it.
            scores_from: another store of the same data whose scores choose, such as one of other subsets.
            models: how many models each arm is to have; by default 20, or what the fullest arm has.
            add: how many more instead.
            seed: of all that is drawn for a new experiment; random by default.
            level: coverage of the intervals, which hold however often one looks.
            access: how ``into`` is reached.
            progress: as of `train`.
            comparing: called while a new experiment compares pictures, with how many of how many are done.
            stop_requested: as of `train`.
            how: ``dataset``, ``recipe``, ``recipe_version``, ``data_root``, ``device``, ``batch_models``,
                ``workers``, ``ray``, ``task_cpus``, ``task_gpus`` and ``checkpoint_dir``, as of `train`.

        Raises:
            InvalidInputError: a threshold that removes nothing, everything or a whole class; a store whose
                models cannot be trained here.
            MismatchError: ``into`` or ``scores_from`` is of other data, or the experiment has other settings.
            NotEnoughModelsError: the store has no models yet.
            TrainingError: the recipe failed; what was committed is kept.
        """
        from memdb.experiment import run
        from memdb.experiment.removal import Chooser, Design
        from memdb.experiment.report import Findings
        from memdb.store import require_free
        from memdb.store.access import PLAIN
        from memdb.training.run import carry_out, warn_of_doubts

        require_level(level)
        run.require_testable(self.store)
        given: dict[str, Any] = {
            "thresholds": thresholds, "rules": rules, "controls": controls, "add_back": add_back,
            "fraction": fraction,
        }  # fmt: skip
        given = {
            n: v if isinstance(v, bool | float | int) else tuple(v) for n, v in given.items() if v is not None
        }
        design = Design(**given)
        storage = (PLAIN if access is None else access).open(into)
        store = run.opened(storage, self.store.manifest)
        chosen_by = self if scores_from is None else scores_from
        run.require_same_data(chosen_by.store, self.store)

        def chooser(seed: int) -> Chooser:
            alike = partial(self._alike_with_test, how, comparing)
            return Chooser(chosen_by.relations(), level, seed, alike)

        if store is None:
            run.require_counts(models, add)
            seed = run.seed_of(seed)
            experiment = chooser(seed).experiment(design)
            require_free(storage)
            self._means(how)  # data that is not there is missed before anything is created
            store = run.create(storage, self.store, experiment, seed)
        else:
            scores = None if scores_from is None else chosen_by.store
            run.require_same_design(store, design, frozenset(given), chooser, scores)
            run.require_same_seed(store, seed)
        seeds = run.seeds_to_train(store, models, add)
        if seeds.n_models:
            data, bound = self._means(how)
            plan = run.planned(store, seeds, data, bound, how, self._doubt(bound))
            carry_out(store, plan, store.snapshot(), progress or warn_of_doubts, stop_requested)
        return Findings(store.snapshot(), level, rules or ())

    def _alike_with_test(self, how: HowToTrain, comparing: Callable[[int, int], None]) -> LookAlikes:
        """Return the pairs of a training and a test example that are alike: by pictures, if there are any."""
        from memdb.analysis.near_duplicates.duplicates import alike_pairs
        from memdb.analysis.near_duplicates.wanted import Wanted
        from memdb.experiment.removal import LookAlikes
        from memdb.format.experiment import EQUAL, PICTURES

        said: list[str] = []
        named: DuplicateOptions = {
            "dataset": how.get("dataset"), "data_root": how.get("data_root"), "progress": comparing
        }  # fmt: skip
        sources = self._contents_to_compare(named, said.append)
        alike = alike_pairs([layout.TEST], Wanted(), sources)[layout.TEST]
        return LookAlikes(alike.first, alike.second, EQUAL if said else PICTURES)

    def _means(self, how: HowToTrain) -> tuple[str | Dataset, BoundRecipe]:
        """Return the data, or its name if workers are to load it, and the recipe to train models by."""
        dataset, recipe = how.get("dataset"), how.get("recipe") or self._recipe
        names = Names(self._dataset if dataset is None else dataset, recipe)
        names.require_for(self.store, "training")
        bound = self._bound(recipe, how.get("recipe_version"))
        here = how.get("workers") is None and how.get("ray") is None
        return self._data_to_train_on(dataset, how.get("data_root"), here=here), bound

    def export(
        self,
        path: str | Path,
        what: str = "memorization",
        *,
        outcome: str = "correct",
        drop: str | None = None,
        keep: str | None = None,
        **options: Unpack[PairOptions],
    ) -> Exported:
        """Export scores or models to files that other software reads.

        Args:
            path: the file, or a folder, to write.
            what: ``memorization`` or ``pairs``, to .parquet, .csv, or .npz with an array per column;
                ``fz-pairs`` or ``fz-classes``, to .npz as published by Feldman and Zhang; ``models`` (masks
                and outcomes, as `import_file` reads them) or ``lira`` (keep and scores), to .npz or a folder
                of .npy; ``ids``, the training examples for which a condition is true, to .csv, .parquet,
                .json, or text with a key a line, for `memdb.init` to take or to exclude.
            drop: with ``ids``, the condition in SQL, such as ``memorization > .5 and q < .1``. It may name
                what `sql` shows of training examples, and ``shrunk`` and ``q_value``, or ``q``. One that you
                do not trust is for `memdb export`, which runs it in a separate process.
            keep: the same for examples to keep.
            options: see `pairs`.

        Raises:
            InvalidInputError: an unknown ``what``, or a suffix that does not fit.
            AlreadyExistsError: a folder that has other contents.
            StorageError: the file or folder cannot be written.
        """
        from memdb.interop import export

        target = Path(path)
        suffix = export.require_destination(target, what)
        if what != "ids" and (drop, keep) != (None, None):
            raise InvalidInputError(
                f"drop and keep are of ids, and {what} is asked for", hint="omit them, or give what='ids'"
            )
        progress = options.get("progress", lambda _done, _total: None)
        if what in {"models", "lira"}:
            return export.write_models(target, self.relations(), what, progress)
        if what == "fz-classes":
            return export.write_fz_classes(target, self.answers().relations, progress)
        level, interval = options.get("level", 0.95), options.get("interval", "anytime")
        spec = IntervalSpec(interval, level)
        if what == "ids":
            return self._export_ids(target, (drop, keep), outcome, spec)
        if what == "memorization":
            table = self.answers(outcome).scores(what, {"train_id": None}, spec)
        else:
            table = self.answers(outcome).pairs(options)
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

    def _export_ids(
        self, path: Path, conditions: tuple[str | None, str | None], outcome: str, spec: IntervalSpec
    ) -> Exported:
        from memdb.interop.export import Exported
        from memdb.interop.ids import chosen, write_ids
        from memdb.render.answer import Answer

        drop, keep = conditions
        table = chosen(self.answers(outcome), drop, keep, spec)
        facts = {
            "store": self.url, "snapshot": self.snapshot.number, "models_sha256": self.models_sha256,
            "condition": keep if drop is None else drop, "interval": spec.kind, "level": spec.level,
            "outcome": outcome, "n_models": self.n_models,
        }  # fmt: skip
        write_ids(path, Answer(table, facts if self.imported_scores is None else {}))
        return Exported(path, {"train_id": (table.num_rows,)})

    def compact(
        self, *, alone: bool = False, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> Compaction | None:
        """Compact segments into blocks of up to 1,024 models, as a new snapshot; None if nothing is left.

        Answers are bit for bit the same before, during and after; writers and readers may continue.

        Args:
            alone: assert that no other process is compacting; needed on storages without conditional writes.
            progress: called with the number of models compacted so far and in all.

        Raises:
            InvalidInputError: the storage has no conditional writes, and ``alone`` is not given.
            StorageError: the storage failed, or a segment is damaged; readers see no change.
        """
        from memdb.store.maintenance.compact import compact

        self._require_now("compact")
        try:
            return compact(self.store, alone=alone, progress=progress)
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
        """Remove objects that no reader or writer can need any more, and return them.

        These are leftovers of killed writers, segments that were compacted into a block, and blocks that were
        replaced, each after a grace period.

        Args:
            grace: how long to keep an object after it became garbage.
            alone: assert that no other process uses the store, which allows a grace period below 24 hours.
            dry_run: only list the garbage.
            progress: called with the number of objects removed so far and in all.

        Raises:
            InvalidInputError: a grace period below 24 hours without ``alone``.
            StorageError: the storage failed, or a block is damaged, in which case its segments are kept.
        """
        from memdb.store.maintenance import gc

        self._require_now("gc")
        doomed = gc.garbage(self.store, grace, alone=alone)
        if dry_run:
            return doomed
        removed = []
        try:
            for item in gc.remove(self.store, doomed):
                removed.append(item)
                progress(len(removed), len(doomed))
        finally:
            self.refresh()
        return removed

    def verify(
        self, *, repair: bool = False, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> tuple[Report, Repair | None]:
        """Check every object and every value of the store against its checksums.

        Args:
            repair: set damaged segments and blocks aside, so that the rest is usable. Nothing is deleted.
            progress: called with the number of steps done so far and in all.

        Returns:
            What was checked, with its ``damages``, and what the repair did: None if none was asked for or
            needed.

        Raises:
            InvalidInputError: the repair of a published copy, or of a store opened at a snapshot.
            StorageError: the storage failed.
        """
        from memdb.store.maintenance import repair as repairs
        from memdb.store.maintenance.verify import verify
        from memdb.store.maintenance.verify_copy import verify_copy

        if repair:
            self._require_now("repair")
        if self.store.published is not None:
            return verify_copy(self.store, self.store.published, progress), None
        report = verify(self.store, progress)
        if not repair or not report.damages:
            return report, None
        try:
            return report, repairs.repair(self.store, report)
        finally:
            self.refresh()

    def retract(self, model_ids: Sequence[str], because: str) -> Retraction:
        """Retract models permanently, for a stated reason.

        Retracting models because of what they predict biases all scores and invalidates their intervals.

        Args:
            model_ids: ids of models, or unambiguous prefixes of them.
            because: the reason, which is stored.

        Raises:
            InvalidInputError: no reason, or a model that is unknown or already retracted.
            StorageError: the storage failed.
        """
        from memdb.store.maintenance.retract import retract

        self._require_now("retract")
        try:
            return retract(self.store, model_ids, because)
        finally:
            self.refresh()

    def update(self, base: str | None = None) -> BaseUpdate | None:
        """Make the newest snapshot of this store's base the base snapshot; None if it already is.

        Args:
            base: the new address of that store, if it moved.

        Raises:
            InvalidInputError: this store extends no other, or the address may not be followed.
            NotFoundError: the base store is not there.
            MismatchError: a different store, or an older copy, is there.
            StorageError: the storage failed.
        """
        from memdb.store import extend

        self._require_now("update")
        try:
            return extend.update(self.store, base)
        finally:
            self.refresh()

    def plan_publication(
        self,
        url: str,
        *,
        include: Sequence[str] = INCLUDED,
        credit: Credits | None = None,
        dataset: str | None = None,
        data_root: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        site: bool | str = False,
    ) -> PublicationPlan:
        """Plan a frozen copy of the models that count, for `publish`; nothing is written.

        ``plan.parts`` says what the copy will consist of, and how large it will be.

        Args:
            url: a path, or a URL that fsspec can write to.
            include: ``bits``; ``confidence`` if the copy is to answer that outcome too; ``thumbnails``,
                small pictures of the examples.
            credit: title, authors, licence and citation; by default those published there before.
            dataset: for thumbnails, the name of a data set that is code, if you have not named it before.
            data_root: for thumbnails, the folder that holds the data set.
            storage_options: for the fsspec driver of ``url``.
            site: with a page that shows the copy in a browser; an address of the copy, if the page is to work
                from elsewhere, too.

        Raises:
            AlreadyExistsError: the destination holds something else.
            InvalidInputError: an unknown thing to include, a read-only destination, excluded models, or an
                older snapshot than is there.
            NotEnoughModelsError: the store has neither models nor imported scores.
            StorageError: the destination could not be read.
        """
        from memdb.look.site import SitePage
        from memdb.sharing.publish import plan_publication
        from memdb.storage import open_storage

        if self.view.exclude:
            raise InvalidInputError(
                f"cannot publish {self.url} without some models: nobody would see that they are missing",
                hint="retract them with `memdb retract`, which is on record, or publish all",
            )
        page = SitePage(site if isinstance(site, str) else None) if site else None
        target = open_storage(url, storage_options)
        plan = plan_publication(
            self.store, self.snapshot, target, include, credit,
            lambda: self._shown(data_root, dataset), page,
        )  # fmt: skip
        n_there = plan.before.snapshot.n_models if plan.before else 0
        if self.view.as_of is not None and n_there > self.n_models:
            raise InvalidInputError(
                f"{url} has {count(n_there, 'model')} already, snapshot {self.view.as_of} only "
                f"{self.n_models:,}",
                hint="publish it to a new place, or omit as_of",
                parameter="as_of",
            )
        return plan

    def publish(
        self,
        url: str | PublicationPlan,
        *,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        **options: Unpack[PublicationOptions],
    ) -> Publication:
        """Write a frozen copy of the models that count to a path or URL, for others to query where it is.

        What is there already is left alone, so that an interrupted publication goes on, and one after
        more models writes only what is new; readers see what was published before until the end.

        Args:
            url: a path, a URL that fsspec can write to, or a plan made by `plan_publication`.
            progress: called with the work done and its total.
            options: those of `plan_publication`; a plan has them already.

        Raises:
            AlreadyExistsError: the destination holds something else, or was published to after the plan
                was made.
            InvalidInputError: whatever `plan_publication` refuses, a plan of another store, or options beside
                a plan.
            NotEnoughModelsError: the store has neither models nor imported scores.
            StorageError: the destination refused, or a segment is not intact; readers see nothing new.
        """
        from memdb.sharing.publish import PublicationPlan, publish

        if not isinstance(url, PublicationPlan):
            return publish(self.plan_publication(url, **options), progress)
        if options:
            raise InvalidInputError(
                f"a plan has its {' and '.join(options)} already", hint="give them to `plan_publication`"
            )
        if url.snapshot.url != self.url:
            raise InvalidInputError(f"{url.snapshot.url} was planned to be published, not {self.url}")
        return publish(url, progress)

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

        Args:
            path: of the file to write, which ends in .html.
            level: of the intervals, in [0.5, 1).
            pictures: whether to show pictures of the examples.
            dataset: the name of the data set, if it is code that you have not named before.
            data_root: the folder that holds the data.
            progress: called with the number of lists and pictures done so far and in all.

        Raises:
            InvalidInputError: scores that were imported, which have no counts to show, a path that does not
                end in .html, or a level that is not one.
            StorageError: the file could not be written.
        """
        from memdb.look.report import write_report

        self._require_counts("a report")
        shown, reason = self.pictures_of_page(pictures=pictures, dataset=dataset, data_root=data_root)
        report = write_report(Path(path), self.relations(), level, shown, progress)
        return replace(report, without_pictures=reason)

    def viewer(self, pictures: Mapping[str, ShownOf], level: float = 0.95) -> Viewer:
        """Return what `memdb view` serves: the page, and its numbers, lists and pictures when asked for.

        Raises:
            InvalidInputError: scores that were imported, which have no counts to show, or a level that is not
                one.
        """
        from memdb.look.view import Viewer

        self._require_counts("a page")
        return Viewer(self.relations(), level, pictures)

    def pictures_of_page(
        self, *, pictures: bool = True, dataset: str | None = None, data_root: str | None = None
    ) -> tuple[Mapping[str, ShownOf], str]:
        """Return the pictures, or words, of each set that a page can show, or why there are none.

        Raises:
            MemdbError: there are none, although ``dataset`` or ``data_root`` is given.
        """
        if not pictures:
            return {}, ""
        try:
            return self._pictures_of_page(data_root, dataset), ""
        except MemdbError as error:
            if dataset is not None or data_root is not None:
                raise
            return {}, str(error)

    def _require_counts(self, what: str) -> None:
        if self.imported_scores is not None:
            raise InvalidInputError(
                f"{what} shows counts of models, and imported scores have none",
                hint="write their list: `memdb top-memorized -o scores.csv`",
            )

    def _pictures_of_page(self, data_root: str | None, dataset: str | None) -> Mapping[str, ShownOf]:
        from memdb.render.sheets import require_pillow, shown_of
        from memdb.store.published_sheets import PublishedSheets

        names = [item.name for item in self.store.manifest.sets if item.n_examples]
        published = self.store.published
        if published is not None and published.sheets is not None:
            shown = {name: PublishedSheets.of(self.store, name).as_shown() for name in names}
        elif published is not None and published.thumbnails is not None:
            shapes = {name: self.thumbnails(name, [0]).shape for name in names}
            shown = {
                name: shown_of(shape[1:], partial(self.thumbnails, name)) for name, shape in shapes.items()
            }
        else:
            made = self._shown(data_root, dataset)
            shown = {name: shown_of(made[name].shape[1:], made[name].chosen) for name in names}
        if any(those.shape for those in shown.values()):
            require_pillow()
        return shown

    def portrait(
        self,
        *,
        k: int = 4,
        outcome: str = "correct",
        level: float = 0.95,
        **example: Unpack[ExampleNames],
    ) -> Portrait:
        """Return one example with its score and its k strongest partners each way; `show` draws it.

        Args:
            k: partners that help, and as many that hurt.
            example: ``train_id`` or ``test_id``, or its key.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            InvalidInputError: not exactly one example is named, or an argument is invalid.
            NotFoundError: no example has the key.
        """
        from memdb.look.portrait import portrait

        fixed = find_one(self.relations(), example, FIXED[:2])
        return portrait(self.answers(outcome), fixed, k, level)

    def show(
        self,
        *,
        k: int = 4,
        outcome: str = "correct",
        level: float = 0.95,
        dataset: str | Dataset | None = None,
        data_root: str | None = None,
        **example: Unpack[ExampleNames],
    ) -> Figure:
        """Return a Matplotlib figure of one example with its score and its strongest partners.

        Args:
            k, example: see `portrait`.
            dataset: the data set, or its name if it is code that you have not named before.
            data_root: the folder that holds the data. Without the data, the figure has no pictures.

        Raises:
            InvalidInputError: Matplotlib is not installed, or what `portrait` refuses.
        """
        from memdb.look.figures import draw_portrait, require_matplotlib

        require_matplotlib()
        shown = self.portrait(k=k, outcome=outcome, level=level, **example)
        return draw_portrait(shown, self.contents_if_any(data_root, dataset)[0])

    def exhibits(
        self,
        by: str = "memorization",
        *,
        class_name: str | None = None,
        k: int = 4,
        rows: int = 3,
        seed: int = 0,
        outcome: str = "correct",
        level: float = 0.95,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Gallery:
        """Return the examples that a gallery shows; `gallery` draws them.

        Args:
            by: ``memorization``: training examples near 0, .25, .5, .75 and 1; ``influence``: memorized
                examples with the test examples that they help most, and a control.
            class_name: only training examples of this class, given by name or number.
            k: pictures in a row.
            rows: training examples, by influence.
            seed: of what is chosen at random: the same models and seed give the same gallery.
            progress: called with the number of pairs searched so far and in all, by influence.

        Raises:
            NotEnoughModelsError: the store has no models yet.
            NotFoundError: there is nothing to show.
            InvalidInputError: an argument is invalid.
        """
        from memdb.look.exhibits import Choice, gallery

        choice = Choice(by, class_name, k, rows, seed, require_level(level))
        return gallery(self.answers(outcome), choice, progress)

    def gallery(
        self,
        by: str = "memorization",
        *,
        dataset: str | Dataset | None = None,
        data_root: str | None = None,
        **options: Unpack[GalleryOptions],
    ) -> Figure:
        """Return a Matplotlib figure of examples as Feldman and Zhang (2020) show them in figures 2 and 3.

        Args:
            by, options: see `exhibits`.
            dataset, data_root: see `show`.

        Raises:
            InvalidInputError: Matplotlib is not installed, or what `exhibits` refuses.
        """
        from memdb.look.figures import draw_gallery, require_matplotlib

        require_matplotlib()
        shown = self.exhibits(by, **options)
        return draw_gallery(shown, self.contents_if_any(data_root, dataset)[0])

    def contents(self, data_root: str | None = None, dataset: str | Dataset | None = None) -> Contents:
        """Return what shows examples: a function from ``train`` or ``test`` and a row to a picture or text.

        Pictures are uint8 [height, width, 1 or 3]: a published copy's thumbnails or, of other stores and
        where the data set is named, those of the data set.

        Raises:
            InvalidInputError, NotFoundError: what `load_dataset` raises.
            NotFoundError: the copy's pictures are on sheets, and Pillow is not installed.
            MismatchError: the data set is not the store's.
        """
        from memdb.datasets import appearance
        from memdb.store.thumbnails import read_shown

        named = dataset is not None or data_root is not None
        published = self.store.published
        if published is not None and (published.thumbnails or published.sheets) and not named:
            read_shown(self.store, layout.TRAIN, [])  # which says whether any can be had
            return appearance.of_thumbnails(partial(read_shown, self.store))
        if not named and self._contents is not None:
            return self._contents
        manifest = self.store.manifest
        if dataset is None or isinstance(dataset, str):
            data = self.load_dataset(data_root, dataset)
        else:
            data = dataset.of(manifest)
        manifest.require_same(data.infos, manifest.recipe, self.url)
        self._contents = appearance.of_dataset(data)
        return self._contents

    def contents_if_any(
        self, data_root: str | None = None, dataset: str | Dataset | None = None
    ) -> tuple[Contents | None, str]:
        """Return the same, or None and why: where the data is named, it is required."""
        try:
            return self.contents(data_root, dataset), ""
        except MemdbError as error:
            if dataset is not None or data_root is not None:
                raise
            is_missing = isinstance(error.__cause__, ImportError)  # a package
            return None, f"{error}; {error.hint}" if is_missing else str(error)

    def load_dataset(self, data_root: str | None = None, dataset: str | None = None) -> Dataset:
        """Load the data set of the store, whose examples the store itself does not keep.

        Args:
            data_root: the folder that holds the data.
            dataset: the name of the data set, if it is code that you have not named before.

        Raises:
            UnnamedCodeError: the store's data set is code that you have not named.
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
        data = datasets.load(name, data_root).of(self.store.manifest)
        if name == self.store.manifest.dataset:
            self._dataset = data
        return data

    def _shown(self, data_root: str | None, dataset: str | None) -> Mapping[str, Thumbnails | Words]:
        """Return thumbnails or words of each set, for which the data set is loaded."""
        from memdb.sharing.thumbnails import appearances_of

        if self.store.published is not None:
            raise InvalidInputError(
                f"{self.url} is a published copy: pictures of its examples are its owner's to make",
                hint="take those that it has along with `memdb pull`, or omit thumbnails",
            )
        data = self.load_dataset(data_root, dataset)
        manifest = self.store.manifest
        manifest.require_same(data.infos, manifest.recipe, self.url)
        appearances = appearances_of(data)
        return {item.name: appearances[item.name] for item in manifest.sets if item.n_examples}

    def _require_now(self, verb: str) -> None:
        self.store.require_growing(verb)
        if self.view.as_of is not None:
            raise InvalidInputError(
                f"cannot {verb} snapshot {self.view.as_of}", hint="open the store without as_of"
            )
        if self.view.exclude:
            raise InvalidInputError(
                f"cannot {verb} without some models", hint="open the store without exclude"
            )

    def _wanted(
        self, add: int | None, seeds: Sequence[int] | None, task_id: str | int | None, *, endless: bool
    ) -> Seeds:
        """Return the seeds of the models to train: random, derived from a task, or given."""
        if (add is not None or endless) == (seeds is not None) or (seeds is not None and task_id is not None):
            raise InvalidInputError(
                "train takes either a number of models or their seeds", hint="give one of them"
            )
        from memdb.format import subsets
        from memdb.training.loop import require_positive
        from memdb.training.seeds import Seeds, random_seeds, require_seeds, task_seeds

        store_seed = self.store.manifest.seed
        n_models = None if add is None else require_positive(add, "add")
        if seeds is None and task_id is None:
            source = random_seeds() if n_models is None else subsets.random_seeds(n_models)
            return Seeds(source, n_models, store_seed)
        known = frozenset(
            model.model_id for part in self.store.own_snapshot().segments for model in part.models
        )
        if seeds is None:
            return Seeds(task_seeds(str(task_id)), n_models, store_seed, known)
        require_seeds(seeds)
        return Seeds(seeds, len(seeds), store_seed, known)

    def _data_to_train_on(
        self, given: str | Dataset | None, data_root: str | None, *, here: bool
    ) -> str | Dataset:
        """Return the data set, or its name if workers are to load it."""
        from memdb import datasets

        if isinstance(given, datasets.Dataset):
            return given.of(self.store.manifest)
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
            raise InvalidInputError(
                f"recipe_version {version!r} was given without a recipe", hint="give the recipe too"
            )
        return recipes.rebind(theirs)

    def _doubt(self, recipe: BoundRecipe) -> str:
        """Return a warning if models in the store were trained from other source, or an empty string."""
        from memdb.training.loop import SOURCE

        if recipe.info.fingerprint != self.store.manifest.recipe.fingerprint:
            return ""  # which workers refuse
        return recipe.change_since(model.versions.get(SOURCE) for _, model in self.snapshot.models)

    @cached_property
    def _results(self) -> Results:
        from memdb.query.results import Results

        here, store, dataset = (
            weakref.ref(self),
            self.store,
            self._dataset,
        )  # an answer keeps no models in memory

        def html(rows: DuckDBPyRelation) -> str:
            from memdb.look.notebook import table_of

            database = here() or Database(store, dataset)
            return table_of(rows, database.contents_if_any()[0])

        return Results(html)

    def _present(self, table: pa.Table, *asked: object) -> DuckDBPyRelation:
        """Return rows that say what was ``asked``: the outcome, and the level and kind of intervals."""
        facts = dict(zip(("outcome", "level", "interval"), asked, strict=False))
        return self._results.present(table, {**facts, "n_models": self.n_models} if facts else {})

    def _present_scores(self, table: pa.Table, *asked: object) -> DuckDBPyRelation:
        """Return rows of models or of imported scores, which are of no models that a store knows."""
        imported = self.imported_scores
        if imported is None:
            return self._present(table, *asked)
        _, level, interval = asked if imported.assumed else (None, None, None)
        facts = {"outcome": None, "level": level, "interval": interval, "n_models": None}
        return self._results.present(table, facts)


def _visible(
    progress: Callable[[TrainingStatus], None] | bool | None,  # noqa: FBT001 - as it was given
) -> AbstractContextManager[Callable[[TrainingStatus], None]]:
    """Return the progress callback of a training: the user's own, or a bar where one can be drawn."""
    from memdb.training.run import warn_of_doubts

    if callable(progress):
        return nullcontext(progress)
    if progress:
        from memdb.render.progress import bar_of_training, can_draw
        from memdb.render.tables import console

        here = console(stderr=True)
        if can_draw(here):
            return bar_of_training(here, warn_of_doubts)
    return nullcontext(warn_of_doubts)
