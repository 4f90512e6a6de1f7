"""What one can ask of a store from Python: the command line's questions, as methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack

from memdb import layout
from memdb.errors import InvalidInput
from memdb.query import questions, score_tables
from memdb.query.connection import Relations
from memdb.query.counting import MAX_PAIRS
from memdb.query.forms import require_outcome
from memdb.query.intervals import IntervalChoice
from memdb.query.lists import Order
from memdb.query.questions import SIDES
from memdb.query.results import Results
from memdb.query.score_tables import Assumed, TableRelations
from memdb.store import Snapshot, Store
from memdb.store.exclusion import without

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    import pyarrow as pa
    from duckdb import DuckDBPyRelation
    from numpy.typing import NDArray

    from memdb.query.pair_scores import PairOptions
    from memdb.score_table import ScoreTable


class Reader:
    """A store and what one can ask of it. Answers are of the models that were there when it was opened.

    Every question returns a DuckDB relation whose rows are already computed: ``.df()``, ``.arrow()``,
    ``.pl()``, ``.fetchall()``. Scores come with an interval of the kind and level asked for and the counts
    behind it; they are NULL where an example was never in, or never out of, a subset.

    ``outcome`` is what is averaged over models: ``correct``, 0 or 1, or ``confidence``, the probability that
    the model gives to the label. Scores of the two differ and are never mixed; columns ``k_in`` and ``k_out``
    count right models, ``s_in``, ``s_out`` sum confidences and ``q_in``, ``q_out`` their squares.

    ``scores`` names a score table of the store, imported scores without models: lists, scores, pairs, SQL and
    comparisons answer from it then. So they do without a name where a store has one table and no models.
    """

    def __init__(
        self,
        store: Store,
        *,
        as_of: int | None = None,
        exclude: Sequence[str] = (),
        scores: str | None = None,
        assume: tuple[int, float] | None = None,
    ) -> None:
        self.store = store
        self._as_of = as_of
        self._exclude = tuple(exclude)
        self._named_scores = scores
        self._assumed = None if assume is None else Assumed(*assume)
        self._relations: dict[str, Relations] = {}
        self._results = Results()

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
        return without(self.store.snapshot(self._as_of), self._exclude)

    def relations(self, outcome: str = "correct") -> Relations:
        """Return the snapshot as DuckDB relations for an outcome.

        Raises:
            InvalidInput: no such outcome.
        """
        if outcome not in self._relations:
            self._relations[outcome] = Relations(self.snapshot, require_outcome(outcome))
        return self._relations[outcome]

    def score_tables(self) -> list[ScoreTable]:
        """Return what the store says of its score tables, in the order of import."""
        return self.store.score_tables()

    def thumbnails(self, set_name: str, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Return small pictures of examples of a published copy, uint8 [rows, height, width, channels].

        Raises:
            NotFound: the owner included none, or there is no such set or example.
        """
        from memdb.store.thumbnails import read_thumbnails  # noqa: PLC0415 - questions do without

        shown = self.store.published.thumbnails if self.store.published else None
        return read_thumbnails(self.store.storage, self.store.manifest, shown, set_name, rows)

    @cached_property
    def imported_scores(self) -> TableRelations | None:
        """The score table that is asked (see `score_tables.chosen`); None where models are."""
        return score_tables.chosen(self.store, self.snapshot, self._named_scores, self._assumed)

    def asked(self, outcome: str = "correct") -> Relations:
        """Return the relations that lists, scores, SQL and comparisons answer from."""
        return self.relations(outcome) if self.imported_scores is None else self.imported_scores

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
        return self._present(questions.info(self.relations(outcome), IntervalChoice(interval, level)))

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
            NotEnoughModels: the store has no models yet.
            InvalidInput: a class, k, order, outcome, level or interval that cannot be.
        """
        how = Order(order, "helps", fdr, ranks)
        choice = IntervalChoice(interval, level)
        if self.imported_scores is not None:
            return self._present(score_tables.top_memorized(self.imported_scores, k, class_name, how, choice))
        return self._present(questions.top_memorized(self.relations(outcome), k, class_name, how, choice))

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
        order: str = "shrunk",
        fdr: str = "once",
        ranks: bool = False,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "selected",
    ) -> DuckDBPyRelation:
        """Return the k strongest influences (Feldman and Zhang 2020, equation 2) with one side fixed.

        ``test_id``: the training examples that most influence it. ``train_id``: the test examples that it
        influences most. ``target_id``: the training examples that most influence this training example.
        ``direction`` is ``helps``, ``hurts`` or ``both`` (by absolute value); ``order`` is ``shrunk``,
        ``influence``, ``q_value`` or ``lo``; ``fdr`` and ``ranks`` are those of `top_memorized`.

        Raises:
            NotEnoughModels: the store has no models yet.
            InvalidInput: not exactly one example named, or a value that cannot be.
            NotFound: no example has that key.
        """
        column, row = self._one_of(
            {
                "test_id": (test_id, test_key),
                "train_id": (train_id, train_key),
                "target_id": (target_id, target_key),
            }
        )
        how, choice = Order(order, direction, fdr, ranks), IntervalChoice(interval, level)
        side = SIDES[column]
        if (scores := self.imported_scores) is not None:
            found = score_tables.top_influence(scores, side, row, k, how, choice, same_class=same_class)
            return self._present(found)
        relations = self.relations(outcome)
        found = questions.top_influence(relations, side, row, k, how, choice, same_class=same_class)
        return self._present(found)

    def score(  # noqa: PLR0913 - six ways to name two examples
        self,
        train_id: int | None = None,
        *,
        train_key: str | None = None,
        test_id: int | None = None,
        test_key: str | None = None,
        target_id: int | None = None,
        target_key: str | None = None,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "anytime",
    ) -> DuckDBPyRelation:
        """Return the memorization of a training example, or its influence on a test or training example.

        Raises:
            NotEnoughModels: the store has no models yet.
            InvalidInput: examples not named once each, or a value that cannot be.
            NotFound: no example has that key.
        """
        train, target = self.pair_named(
            train_id=train_id, train_key=train_key, test_id=test_id, test_key=test_key,
            target_id=target_id, target_key=target_key,
        )  # fmt: skip
        choice = IntervalChoice(interval, level)
        if self.imported_scores is not None:
            return self._present(score_tables.score(self.imported_scores, train, target, choice))
        return self._present(questions.score(self.relations(outcome), train, target, choice))

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
            InvalidInput: a value that cannot be.
        """
        return self._scores("memorization", {"train_id": train_id}, outcome, IntervalChoice(interval, level))

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
            InvalidInput: neither example named (`pairs` is for all of them), or a value that cannot be.
        """
        ids = {"train_id": train_id, "test_id": test_id}
        choice = IntervalChoice(interval, level)
        return self._scores("influence", ids, outcome, choice, same_class=same_class)

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
            InvalidInput: neither example named, or a value that cannot be.
        """
        ids = {"train_id": train_id, "target_id": target_id}
        choice = IntervalChoice(interval, level)
        return self._scores("train_influence", ids, outcome, choice, same_class=same_class)

    def _scores(
        self,
        relation: str,
        ids: Mapping[str, int | None],
        outcome: str,
        choice: IntervalChoice,
        *,
        same_class: bool = False,
    ) -> DuckDBPyRelation:
        if self.imported_scores is not None:
            found = score_tables.scores(self.imported_scores, relation, ids, choice, same_class=same_class)
        else:
            found = questions.scores(self.relations(outcome), relation, ids, choice, same_class=same_class)
        return self._present(found)

    def counts(
        self, *, test_id: int | None = None, target_id: int | None = None
    ) -> dict[str, NDArray[np.int32]]:
        """Return the raw counts behind scores as int32 arrays [train].

        ``n_in`` and ``n_out``: models whose subset held or left out each training example; ``k_in`` and
        ``k_out``: those of them that were right on the test example, on the training example
        ``target_id``, or, with neither, on the example itself, as for memorization.

        Raises:
            InvalidInput: both named, or an id out of range.
        """
        return questions.counts(self.relations(), {"test_id": test_id, "target_id": target_id})

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
            NotEnoughModels: the store has no models yet.
            InvalidInput: neither ``top`` nor ``min_influence``, or a value that cannot be.
            StorageFailed: the file could not be written; what was found stays beside it.
        """
        from memdb.query import pair_files, pair_scores  # noqa: PLC0415 - only this needs their packages

        if self.imported_scores is not None:
            if output is not None:
                raise InvalidInput("imported pairs are few", hint="write the relation: .to_parquet(path)")
            return self._present(score_tables.pairs(self.imported_scores, options))
        if output is None:
            return self._present(pair_scores.pairs(self.relations(outcome), options))
        pair_files.written_pairs(self.relations(outcome), Path(output), options)
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
        timeout: float = questions.TIMEOUT_SECONDS,
    ) -> DuckDBPyRelation:
        """Run one SQL statement over the relations, without access to files, network or settings.

        ``k`` keeps the first k rows. The limits are DuckDB's: 4 GB bound its buffers, not what lists and
        strings take, and it ends between two steps. `memdb sql` runs a stranger's in a process of its own.

        Raises:
            InvalidInput: SQL that cannot run, that looks at too many pairs, or takes too long (seconds).
        """
        choice = IntervalChoice(interval, level)
        relations = self.asked(outcome)
        return self._present(
            questions.sql(relations, statement, choice, k=k, max_pairs=max_pairs, timeout=timeout)
        )

    def _present(self, table: pa.Table) -> DuckDBPyRelation:
        return self._results.present(table)

    def pair_named(
        self,
        *,
        train_id: int | None = None,
        train_key: str | None = None,
        test_id: int | None = None,
        test_key: str | None = None,
        target_id: int | None = None,
        target_key: str | None = None,
    ) -> tuple[int, tuple[str, int] | None]:
        """Return the row of a training example, and the column and row of its target, if one was named.

        Raises:
            InvalidInput: examples not named once each, or out of range.
            NotFound: no example has that key.
        """
        _, train = self._one_of({"train_id": (train_id, train_key)})
        targets = {"test_id": (test_id, test_key), "target_id": (target_id, target_key)}
        named = any(value is not None for pair in targets.values() for value in pair)
        return train, self._one_of(targets) if named else None

    def _one_of(self, given: Mapping[str, tuple[int | None, str | None]]) -> tuple[str, int]:
        """Return the column and row of the one example that was named, by id or by key."""
        column, identifier, key = questions.named_once(given)
        example_set = layout.TEST if column == "test_id" else layout.TRAIN
        return column, self.relations().row_of(example_set, identifier, key, f"--{column.replace('_', '-')}")
