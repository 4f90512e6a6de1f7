"""The questions that are answered from models: a file of SQL each, with checked parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.addresses import shown
from memdb.errors import InvalidInputError
from memdb.format import bits, layout
from memdb.format.documents import canonical_json
from memdb.format.manifest import Manifest
from memdb.query import counted
from memdb.query.answers import ids_of, relation_of, rows_of, rows_with
from memdb.query.arrow import of_records, values_of
from memdb.query.examples import ExampleRef, require_models, require_own, set_of
from memdb.query.from_published import stored_influence, stored_pair
from memdb.query.intervals import IntervalSpec
from memdb.query.options import USER_LIMITS, Order, PairOptions, RankedQuery, StatementLimits, require_k
from memdb.query.outcomes import OUTCOMES
from memdb.query.points import point
from memdb.query.ranked_list import Columns, ranked
from memdb.query.relations import Relations
from memdb.query.statements import Kind, out_of_python
from memdb.query.templates import template
from memdb.store import Snapshot
from memdb.store.published_arrays import derived_of
from memdb.store.read_sketches import find_sketches

SHORTEST_SECONDS, LONGEST_SECONDS = 0.001, 4_000_000.0  # the range that timers support on every system


@dataclass(frozen=True, slots=True)
class Side:
    """One way to ask for influence: the relation, the id column that is listed, and what is influenced."""

    relation: str
    listed: str
    target: str


SIDES: Mapping[str, Side] = {  # by the id column that is fixed
    "test_id": Side("influence", "train_id", "test"),
    "train_id": Side("influence", "test_id", "test"),
    "target_id": Side("train_influence", "train_id", "target"),
}


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """Answers computed from models (see `Answers`)."""

    relations: Relations

    def top_memorized(self, class_name: str | None, query: RankedQuery) -> pa.Table:
        """Return the training examples that rank first by memorization, NULLs last."""
        self._require(query, "memorization")
        require_own(self.relations.snapshot)
        relations = self.relations
        label = None if class_name is None else relations.label_of(class_name)
        if counted.can_count(relations):
            rows = counted.memorizations(relations, label)
        else:
            sql = template("top_memorized.sql", arms=OUTCOMES[relations.outcome].sql["arms"])
            rows = relations.ask(sql, {"label": label})
        return ranked(relations, rows, Columns(("train_id", "label"), "memorization"), query)

    def top_influence(self, fixed: ExampleRef, query: RankedQuery, *, same_class: bool = False) -> pa.Table:
        """Return the influences that rank first with one side fixed, NULLs last."""
        self._require(query, "influence")
        if fixed.column == "target_id":
            require_own(self.relations.snapshot)
        relations, side = self.relations, SIDES[fixed.column]
        if fixed.column == "test_id" and query.order == Order() and not same_class:
            stored = stored_influence(relations, fixed.row, query.k, query.interval)
            if stored is not None:
                return stored
        if counted.can_count(relations):
            rows = counted.influences(relations, fixed, same_class=same_class)
        else:
            names = {"relation": side.relation, "fixed": fixed.column, "listed": side.listed}
            sql = template("top_influence.sql", **names, arms=OUTCOMES[relations.outcome].sql["arms"])
            other_only = fixed.column == "target_id"
            rows = relations.ask(sql, {"id": fixed.row, "same_class": same_class, "other_only": other_only})
        ids = ["train_id", f"{side.target}_id"]
        labels = ["train_label", f"{side.target}_label"]
        columns = Columns((*ids, *labels, "same_class"), "influence", ("memorization",), listed=side.listed)
        return ranked(relations, rows, columns, query)

    def score(self, train_id: int, target: ExampleRef | None, interval: IntervalSpec) -> pa.Table:
        """Return one memorization score, or the influence on one target."""
        return self.scores(relation_of(target), ids_of(train_id, target), interval)

    def scores(
        self,
        relation: str,
        ids: Mapping[str, int | None],
        interval: IntervalSpec,
        *,
        same_class: bool = False,
    ) -> pa.Table:
        """Return the rows with these ids (see `Answers.scores`), from what a copy stores if it can."""
        relations, interval = self.relations, interval.for_named()
        require_models(relations.snapshot)
        if relation != "influence":
            require_own(relations.snapshot)
        given = rows_of(relations, relation, ids)
        if set(given) == {"train_id", "test_id"}:
            stored = stored_pair(relations, given["train_id"], given["test_id"], interval)
            if stored is not None:
                is_kept = not same_class or stored.column("same_class")[0].as_py()
                return stored if is_kept else stored.slice(0, 0)
        one = None if same_class else point(relations, relation, given, interval)
        if one is not None:
            return one
        if relation != "memorization":
            relations.prefetch(layout.TEST if relation == "influence" else layout.TRAIN)
        sql = rows_with(relation, given, ids, same_class=same_class)
        return relations.ask(sql, given, interval=interval)

    def pairs(self, options: PairOptions) -> pa.Table:
        """Return the pairs that the options select: by test id, then from the strongest."""
        from memdb.query.pairs.scores import pairs  # noqa: PLC0415 - other questions do not need its packages

        return pairs(self.relations, options)

    def _require(self, query: RankedQuery, score: str) -> None:
        query.require(score)
        require_models(self.relations.snapshot)


def counts(relations: Relations, target: Mapping[str, int | None]) -> dict[str, NDArray[np.int32]]:
    """Return the counts of every training example on one target, or on itself: int32 [train] each."""
    named = {name: row for name, row in target.items() if row is not None}
    if len(named) > 1:
        raise InvalidInputError(f"{' and '.join(named)} are both given", hint="name one target, or none")
    mask, n_models = relations.mask, relations.snapshot.n_models
    n_in = bits.count(mask)
    if named:
        ((name, given),) = named.items()
        if name == "target_id":
            require_own(relations.snapshot)
        row = relations.row_of(set_of(name), given, None, name)
        correct = relations.correct(set_of(name))[row]
        k_in, k_all = bits.count_and(mask, correct), bits.count(correct)
    else:
        require_own(relations.snapshot)
        own = relations.ask("SELECT k_in, n_correct FROM train_examples ORDER BY id")
        k_in, k_all = (values_of(own.column(name)) for name in ("k_in", "n_correct"))
    return {"n_in": n_in, "n_out": n_models - n_in, "k_in": k_in, "k_out": k_all - k_in}


def sql(
    relations: Relations,
    statement: str,
    interval: IntervalSpec,
    *,
    k: int | None = None,
    limits: StatementLimits = USER_LIMITS,
) -> pa.Table:
    """Run a user's statement over the relations, read-only, without access to files or the network."""
    limits = _require_sql(statement, k, limits)
    table = relations.ask(statement, interval=interval.for_named(), models=True, limits=limits)
    return table if k is None else table.slice(0, k)


def sql_batches(
    relations: Relations,
    statement: str,
    interval: IntervalSpec,
    *,
    k: int | None = None,
    as_text: Kind = out_of_python,
    limits: StatementLimits = USER_LIMITS,
) -> pa.RecordBatchReader:
    """Run a user's statement like `sql`, and stream its rows."""
    limits = _require_sql(statement, k, limits)
    batches = relations.stream(statement, interval.for_named(), as_text, limits)
    schema = next(batches)
    return pa.RecordBatchReader.from_batches(schema, batches if k is None else _first(k, batches))


def require_timeout(seconds: float) -> float:
    """Return the seconds that a statement may run, clipped to what timers support.

    Raises:
        InvalidInputError: not above 0.
    """
    if not seconds > 0:
        raise InvalidInputError(
            f"timeout {seconds:g} is not above 0",
            hint="give seconds, such as timeout=60",
            parameter="timeout",
        )
    return min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS)


def _require_sql(statement: str, k: int | None, limits: StatementLimits) -> StatementLimits:
    """Check a user's statement and its limits; return these with a timeout that timers support."""
    if not statement.strip():
        raise InvalidInputError(
            "an empty statement", hint='write e.g. memdb sql "SELECT * FROM memorization"'
        )
    if limits.max_pairs < 1:
        raise InvalidInputError(
            f"max_pairs {limits.max_pairs} is not above 0", hint="raise it", parameter="max_pairs"
        )
    if k is not None:
        require_k(k)
    return replace(limits, timeout=None if limits.timeout is None else require_timeout(limits.timeout))


def _first(k: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the first k rows."""
    for batch in batches:
        yield batch.slice(0, k)
        k -= batch.num_rows
        if k <= 0:
            return


def _sketches_of(snapshot: Snapshot) -> dict[str, object]:
    """Return how many models have gradient sketches, and what these take; no columns in stores without.

    Published copies do not tell: their blocks, whose documents would, are left unread.
    """
    sketches = [] if snapshot.is_published else find_sketches(snapshot)
    if snapshot.is_published or not (sketches or snapshot.manifest.sketches):
        return {}
    return {
        "n_sketched": len(sketches),
        "sketch_size": sketches[0].projection.size if sketches else None,
        "sketch_bytes": sum(one.n_bytes for one in sketches),
    }


def _base_of(snapshot: Snapshot) -> dict[str, object]:
    """Return the base snapshot of a store that extends another, NULL in other stores."""
    base = snapshot.base
    return {
        "base": shown(base.url) if base else None,
        "base_store_id": base.manifest.store_id if base else None,
        "base_snapshot": base.record.number if base and base.record else None,
        "base_newest_snapshot": base.newest if base else None,
        "n_base_models": base.n_models if base else 0,
    }


def info(relations: Relations, interval: IntervalSpec) -> pa.Table:
    """Return one row about the store."""
    snapshot = relations.snapshot
    manifest = snapshot.manifest
    derived = derived_of(snapshot)
    of_models = (
        {"n_models": snapshot.n_models, **derived[1].models.to_document()}
        if derived
        else relations.ask(template("info_models.sql"), models=True).to_pylist()[0]
    )
    counts_of = {
        **of_models,
        **relations.ask(template("info.sql"), interval=interval.for_named()).to_pylist()[0],
    }
    diverged = (
        (model.model_id for _, model in snapshot.models if model.diverged) if counts_of["n_diverged"] else ()
    )
    row: dict[str, object] = {
        **_facts_of(manifest, relations.n_classes),
        "n_repeats": snapshot.n_repeats,
        "n_retracted": snapshot.n_retracted,
        "n_set_aside": len(snapshot.set_aside),
        "n_blocks": len(snapshot.record.blocks) if derived and snapshot.record else len(snapshot.blocks),
        "n_loose_segments": 0 if derived else len(snapshot.loose),
        "newest_snapshot": snapshot.record.number if snapshot.record else None,
        **_base_of(snapshot),
        "put_if_absent": manifest.put_if_absent,
        **counts_of,
        **_sketches_of(snapshot),
        "diverged": sorted(diverged),
    }
    return of_records([row])


def _facts_of(manifest: Manifest, n_classes: int) -> dict[str, object]:
    """Return the columns about data, recipe and subsets."""
    return {
        "store_id": manifest.store_id,
        "format": layout.FORMAT,
        "dataset": manifest.dataset,
        "dataset_import_path": manifest.imports.get("dataset"),
        "n_train": manifest.train.n_examples,
        "n_test": manifest.set_named(layout.TEST).n_examples,
        **({"n_left_out": manifest.kept.n_examples - manifest.train.n_examples} if manifest.kept else {}),
        "n_classes": n_classes,
        "recipe": manifest.recipe.name,
        "recipe_import_path": manifest.imports.get("recipe"),
        "recipe_version": manifest.recipe.version,
        "recipe_options": canonical_json(manifest.recipe.options).decode(),
        "recipe_fingerprint": manifest.recipe.fingerprint,
        "subset_scheme": manifest.subset_scheme,
        "subset_fraction": manifest.subset_fraction,
        "outcomes": ",".join(outcome.name for outcome in manifest.outcomes),
        "created_at": manifest.created_at,
    }
