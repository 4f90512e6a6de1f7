"""A score table as relations: the same names and columns as for models, with counts and intervals NULL.

Lists are ordered by the scores as imported: without counts there is no shrinkage. Scores have intervals only
under an assumption of how many models they were computed from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from memdb.errors import InvalidInputError, NotFoundError
from memdb.format import layout
from memdb.format.manifest import SetInfo
from memdb.format.score_table import ScoreTable
from memdb.query import arrow
from memdb.query.answers import ids_of, relation_of, rows_of, rows_with
from memdb.query.examples import ExampleRef
from memdb.query.intervals import IntervalSpec
from memdb.query.lazy import Lazy
from memdb.query.options import Order, PairOptions, RankedQuery, require_k
from memdb.query.relations import Relations
from memdb.query.statements import create_table
from memdb.query.templates import template
from memdb.store import Snapshot, Store, StoredScores
from memdb.store.examples import Examples, unlabelled
from memdb.store.score_tables import examples_with, sizes_with

if TYPE_CHECKING:
    import duckdb

PUBLISHED = "published"  # the outcome behind imported scores, which their files do not name
MAX_PAIRS = 10_000_000
SCHEMAS = {"main", "temp", "system", "pg_catalog", "information_schema"}  # of DuckDB itself
WITHOUT_COUNTS = "imported scores come without counts, and so without intervals"
ASSUME = "say how many models to assume behind them: assume=(4000, 0.7)"


@dataclass(frozen=True, slots=True)
class Assumed:
    """The number of models assumed behind every score, and the fraction of the data in their subsets."""

    n_models: int
    subset_fraction: float

    def __post_init__(self) -> None:
        if self.n_models < 2 or not 0 < self.subset_fraction < 1:
            raise InvalidInputError(
                f"assume=({self.n_models}, {self.subset_fraction:g}) is out of range",
                hint="use e.g. assume=(4000, 0.7)",
                parameter="assume",
            )

    @property
    def arms(self) -> tuple[float, float]:
        """The expected number of models in and out, n_in and n_out, of each score."""
        return self.n_models * self.subset_fraction, self.n_models * (1 - self.subset_fraction)


class TableRelations(Relations):
    """A score table as DuckDB relations, of all pairs or only those on one test example."""

    def __init__(
        self,
        snapshot: Snapshot,
        scores: StoredScores,
        assumed: Assumed | None = None,
        only: int | None = None,
        examples: Mapping[str, Examples] | None = None,
    ) -> None:
        super().__init__(snapshot)
        self.scores = scores
        self.assumed = assumed
        self._only = only
        if examples is not None:
            self.examples = examples

    @property
    def are_labelled(self) -> bool:
        """Whether all classes are known: some scores bring labels of the training set alone."""
        sets = [self.examples[info.name] for info in self.snapshot.manifest.sets if info.n_examples]
        return all(examples.are_labelled for examples in sets)

    def on(self, test_id: int) -> TableRelations:
        """Return the same with the pairs on one test example alone, which are read fast."""
        self.row_of(layout.TEST, test_id, None, "test_id")
        return TableRelations(self.snapshot, self.scores, self.assumed, test_id, self.examples)

    def _build(self) -> None:
        """Create the relations, which reads the scores."""
        connection = self.connection
        for name, table in self._given().items():
            create_table(connection, name, table)
        arms = self.assumed.arms if self.assumed else (None, None)
        n_in, n_out = ("NULL::DOUBLE" if n is None else f"{n!r}::DOUBLE" for n in arms)
        connection.execute(template("score_tables.sql", n_in=n_in, n_out=n_out))
        self._is_built = True

    def _given(self) -> dict[str, pa.Table]:
        memorization = self.scores.memorization
        known = np.flatnonzero(~np.isnan(memorization)).astype(np.int32)
        train, test, influence = self.scores.pairs(self._only)
        pairs = {"train_id": train, "test_id": test, "influence": influence}
        return {
            "train_examples": arrow.table(arrow.of_examples(self.examples[layout.TRAIN])),
            "test_examples": arrow.table(arrow.of_examples(self.examples[layout.TEST])),
            "given_memorization": arrow.table({"train_id": known, "memorization": memorization[known]}),
            "given_influence": arrow.table(pairs),
        }

    def _set_z(self, connection: duckdb.DuckDBPyConnection, interval: IntervalSpec) -> None:
        """Set the multipliers of the intervals under the assumption; NULL without one."""
        n_scores = {
            "memorization": self.scores.table.n_memorization,
            "influence": self.scores.n_train * self.scores.n_test,
        }
        for relation, n in n_scores.items():
            one = interval if interval.n_ranked else interval.of_list(1, max(1, n))
            n_models = self.assumed.n_models if self.assumed else None
            connection.execute(
                f"SET VARIABLE z_{relation} = CASE WHEN $n_models IS NOT NULL THEN "
                "interval_z($interval, $alpha, $fixed_z, $n_models::BIGINT, $n_shown, $n_ranked) END",
                {**one.parameters(), "n_models": n_models},
            )

    def arms(self, test_id: int | None) -> pa.Table:
        """Return the scores of all training examples, or on a test example, as `compare` takes them.

        ``given`` is the imported score; sums and counts follow from the assumption, or are NULL.
        """
        relations = self if test_id is None else self.on(test_id)
        score, label = ("memorization", "label") if test_id is None else ("influence", "train_label")
        n_in, n_out = self.assumed.arms if self.assumed else (None, None)
        sql = template("given_arms.sql", score=score, label=label)
        return relations.ask(sql, {"n_in": n_in, "n_out": n_out})


def chosen(
    store: Store, snapshot: Snapshot, name: str | None, assumed: Assumed | None
) -> TableRelations | None:
    """Return the score table that answers: the named one or, in a store without models, the only one.

    Raises:
        NotFoundError: no table of that name, or several tables and no models.
        InvalidInputError: an assumption is given, but the store's own models answer.
    """
    if name is None and snapshot.n_models > 0:
        if assumed is not None:
            raise InvalidInputError(
                f"{snapshot.url} has models, and nothing is assumed of them",
                hint="name imported ones with scores=NAME",
                parameter="scores",
            )
        return None
    tables = store.score_tables()
    named = [table for table in tables if name in {None, table.name}]
    if not named and name is None:
        return None
    if len(named) != 1:
        problem = "no models and several score tables" if name is None else f"no scores named {name!r}"
        raise NotFoundError(
            f"{snapshot.url} has {problem}",
            hint=f"name one with scores: {', '.join(table.name for table in tables) or 'it has none'}",
            parameter="scores",
        )
    return with_table(snapshot, tables, named[0], assumed)


def with_table(
    snapshot: Snapshot, tables: Sequence[ScoreTable], table: ScoreTable, assumed: Assumed | None = None
) -> TableRelations:
    """Return one of a store's score tables as relations, with what all of them say of the examples."""
    sizes = sizes_with(snapshot.manifest, tables)
    known = {item.name for item in snapshot.manifest.sets}
    added = tuple(SetInfo(name, n, "") for name, n in sizes.items() if name not in known)
    whole = replace(snapshot, manifest=replace(snapshot.manifest, sets=(*snapshot.manifest.sets, *added)))
    scores = StoredScores(snapshot.storage, table, sizes[layout.TRAIN], sizes.get(layout.TEST, 0))

    def examples(name: str) -> Examples:
        own = snapshot.examples(name) if name in known else unlabelled(0)
        return examples_with(snapshot, tables, name, own)

    return TableRelations(whole, scores, assumed, examples=Lazy(examples))


def named_in(statement: str, tables: Sequence[ScoreTable]) -> list[ScoreTable]:
    """Return the score tables whose relations a statement names, as in ``FROM cifar100.memorization``."""
    matches = re.findall(
        r'(?:"([^"]+)"|(\w+))\s*\.\s*"?(?:memorization|influence)\b', statement, re.IGNORECASE
    )
    names = {(quoted or plain).lower() for quoted, plain in matches}
    return [table for table in tables if table.name.lower() in names - SCHEMAS]


def attach(relations: Relations, given: TableRelations) -> None:
    """Make a score table readable in SQL as NAME.memorization and NAME.influence, without counts."""
    connection, schema = relations.connection, given.scores.table.name
    counts = "EXCLUDE (n_in, n_out, k_in, k_out, p_in, p_out)"
    known = connection.execute(
        "SELECT schema_name FROM duckdb_schemas() WHERE schema_name = $name", {"name": schema}
    )
    if not known.fetchall():
        connection.execute(f'CREATE SCHEMA "{schema}"')
        for name in ("memorization", "influence"):
            create_table(connection, f'"{schema}".{name}', given.ask(f"SELECT * {counts} FROM {name}"))  # noqa: S608


@dataclass(frozen=True, slots=True)
class ScoreAnswers:
    """Answers read from imported scores (see `Answers`)."""

    relations: TableRelations

    def top_memorized(self, class_name: str | None, query: RankedQuery) -> pa.Table:
        """Return the training examples that rank first by imported memorization, of those that have one."""
        label = None if class_name is None else self.relations.label_of(class_name)
        n_ranked = self.relations.scores.table.n_memorization
        where = "$label::INTEGER IS NULL OR label = $label"
        listed = Listed("memorization", "train_id", where, {"label": label}, n_ranked)
        return _listed(self.relations, listed, query)

    def top_influence(self, fixed: ExampleRef, query: RankedQuery, *, same_class: bool = False) -> pa.Table:
        """Return the imported influences that rank first with one side fixed."""
        relations, on_test = self.relations, fixed.column == "test_id"
        if fixed.column == "target_id":
            raise InvalidInputError(
                f"{relations.scores.table.name} has no influences on training examples",
                hint="use test_id or train_id",
                parameter=("test_id", "train_id"),
            )
        where = f"{fixed.column} = $row" + " AND same_class" * same_class
        n_ranked = relations.scores.n_train if on_test else relations.scores.n_test
        listed = "train_id" if on_test else "test_id"
        found = Listed("influence", listed, where, {"row": fixed.row}, n_ranked)
        return _listed(relations.on(fixed.row) if on_test else relations, found, query)

    def score(self, train_id: int, target: ExampleRef | None, interval: IntervalSpec) -> pa.Table:
        """Return one memorization score, or the influence on one target.

        Raises:
            NotFoundError: the influence was not imported.
        """
        rows = self.scores(relation_of(target), ids_of(train_id, target), interval)
        if rows.num_rows == 0 and target is not None:
            raise NotFoundError(
                f"{self.relations.scores.table.name} has no influence of training example {train_id} on "
                f"{'test' if target.column == 'test_id' else 'training'} example {target.row}",
                hint="it has those that its makers published: `memdb pairs --top 3` shows some",
            )
        return rows

    def scores(
        self,
        relation: str,
        ids: Mapping[str, int | None],
        interval: IntervalSpec,
        *,
        same_class: bool = False,
    ) -> pa.Table:
        """Return the imported scores with these ids, by ascending ids; ``None`` matches any id."""
        interval = interval.for_named()
        given = rows_of(self.relations, relation, ids)
        narrowed = self.relations.on(given["test_id"]) if "test_id" in given else self.relations
        sql = rows_with(relation, given, ids, same_class=same_class)
        return narrowed.ask(sql, given, interval=interval)

    def pairs(self, options: PairOptions) -> pa.Table:
        """Return the imported pairs that the options select: by test id, then from the strongest."""
        least, top = options.get("min_influence"), options.get("top")
        if least is None and top is None:
            raise InvalidInputError(
                "neither min_influence nor top is given",
                hint="use e.g. min_influence=0.15",
                parameter=("min_influence", "top"),
            )
        interval = IntervalSpec(options.get("interval", "selected"), options.get("level", 0.95))
        direction = options.get("direction", "helps")
        Order("influence", direction).require("influence")
        strength = {"helps": "influence", "hurts": "-influence", "both": "abs(influence)"}[direction]
        n_ranked = max(1, self.relations.scores.n_train * self.relations.scores.n_test)
        sql = template("given_pairs.sql", strength=strength)
        given = {
            "least": least,
            "memorized": options.get("min_memorization"),
            "same_class": options.get("same_class", False),
            "top": None if top is None else require_k(top),
        }
        n_shown = self.relations.ask(f"SELECT count(*) AS n FROM ({sql})", given).column("n")[0].as_py()  # noqa: S608
        return self.relations.ask(sql, given, interval=interval.of_list(max(1, n_shown), n_ranked))


@dataclass(frozen=True, slots=True)
class Listed:
    """The imported scores to list: the relation, its listed id, a condition, and the number ranked."""

    score: str
    listed: str
    where: str
    given: Mapping[str, Any]
    n_ranked: int


def _listed(relations: TableRelations, what: Listed, query: RankedQuery) -> pa.Table:
    order, score, k = query.order, what.score, query.k
    query.require(score)
    if order.ranks or order.by == "q_value" or order.fdr != "once":
        raise InvalidInputError(
            f"no q-values and no ranks: {WITHOUT_COUNTS}", hint=f'use order="{score}"', parameter="order"
        )
    if order.by == "lo" and relations.assumed is None:
        raise InvalidInputError(f"no order by lo: {WITHOUT_COUNTS}", hint=ASSUME, parameter="assume")
    n_ranked = max(1, what.n_ranked)
    return relations.ask(
        f"FROM {score} WHERE {what.where} AND {score} IS NOT NULL "
        f"ORDER BY {order.key(score)}, {what.listed} LIMIT $k",
        {**what.given, "k": k},
        interval=query.interval.of_list(min(k, n_ranked), n_ranked),
    )
