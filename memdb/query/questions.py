"""Questions to a snapshot: each one a file of SQL, its parameters checked, its rows as an Arrow table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb import bits, layout
from memdb.addresses import shown
from memdb.documents import canonical_json
from memdb.errors import InvalidInput, NotEnoughModels
from memdb.query.columns import values_of
from memdb.query.connection import Relations
from memdb.query.counting import MAX_PAIRS
from memdb.query.forms import FORMS, schema
from memdb.query.intervals import NAMED_INTERVALS, IntervalChoice
from memdb.query.lists import Columns, Order, ranked, require_k
from memdb.query.statements import Kind, out_of_python
from memdb.query.stored import stored_influence, stored_pair
from memdb.store import Snapshot
from memdb.store.derived import derived_of

TIMEOUT_SECONDS = 600.0
SHORTEST_SECONDS, LONGEST_SECONDS = 0.001, 4_000_000.0  # what the timers of every system can count


@dataclass(frozen=True, slots=True)
class Side:
    """One way to ask for influence: which relation, which of its id columns is given, which is listed."""

    relation: str
    fixed: str
    listed: str
    target: str
    example_set: str


SIDES: Mapping[str, Side] = {
    "test_id": Side("influence", "test_id", "train_id", "test", layout.TEST),
    "train_id": Side("influence", "train_id", "test_id", "test", layout.TRAIN),
    "target_id": Side("train_influence", "target_id", "train_id", "target", layout.TRAIN),
}


def top_memorized(
    relations: Relations, k: int, class_name: str | None, order: Order, choice: IntervalChoice
) -> pa.Table:
    """Return the first k training examples by memorization, NULLs last."""
    order.require("memorization")
    choice.parameters()
    require_k(k)
    _require_models(relations)
    label = None if class_name is None else relations.label_of(class_name)
    sql = schema("top_memorized.sql", arms=FORMS[relations.outcome]["arms"])
    found = relations.ask(sql, {"label": label})
    return ranked(relations, found, Columns(("train_id", "label"), "memorization"), k, order, choice)


def top_influence(  # noqa: PLR0913 - which pairs, how many, in which order, with which interval
    relations: Relations,
    side: Side,
    row: int,
    k: int,
    order: Order,
    choice: IntervalChoice,
    *,
    same_class: bool = False,
) -> pa.Table:
    """Return the first k influences with one side fixed, NULLs last."""
    order.require("influence")
    choice.parameters()
    require_k(k)
    _require_models(relations)
    if side.fixed == "test_id" and order == Order() and not same_class:
        stored = stored_influence(relations, row, k, choice)
        if stored is not None:
            return stored
    names = {name: getattr(side, name) for name in ("relation", "fixed", "listed")}
    sql = schema("top_influence.sql", **names, arms=FORMS[relations.outcome]["arms"])
    other_only = side.fixed == "target_id"
    relations.prefetch(layout.TEST if side.target == layout.TEST else layout.TRAIN)
    found = relations.ask(sql, {"id": row, "same_class": same_class, "other_only": other_only})
    ids = ["train_id", f"{side.target}_id"]
    labels = ["train_label", f"{side.target}_label"]
    columns = Columns((*ids, *labels, "same_class"), "influence", ("memorization",), listed=side.listed)
    return ranked(relations, found, columns, k, order, choice)


def score(
    relations: Relations, train_id: int, target: tuple[str, int] | None, choice: IntervalChoice
) -> pa.Table:
    """Return one memorization score, or the influence on one target: ``("test_id", 42)``."""
    column, row = target or (None, None)
    relation = {None: "memorization", "test_id": "influence", "target_id": "train_influence"}[column]
    return scores(relations, relation, {"train_id": train_id} | ({column: row} if column else {}), choice)


def scores(
    relations: Relations,
    relation: str,
    ids: Mapping[str, int | None],
    choice: IntervalChoice,
    *,
    same_class: bool = False,
) -> pa.Table:
    """Return the rows of a relation that have these ids, by ascending ids; ``None`` leaves one open."""
    settings = choice.parameters(NAMED_INTERVALS)
    _require_models(relations)
    given = {
        name: relations.row_of(_set_of(name), row, None, name) for name, row in ids.items() if row is not None
    }
    if relation != "memorization" and not given:
        wanted = " or ".join(ids)
        raise InvalidInput(
            f"{relation} of all pairs is too much at once",
            hint=f"name {wanted}, or use pairs for all of them",
        )
    if set(given) == {"train_id", "test_id"}:
        stored = stored_pair(relations, given["train_id"], given["test_id"], settings)
        if stored is not None:
            return stored if not same_class or stored.column("same_class")[0].as_py() else stored.slice(0, 0)
    if relation != "memorization":
        relations.prefetch(layout.TEST if relation == "influence" else layout.TRAIN)
    filters = [f"{name} = ${name}" for name in given] + ["same_class"] * same_class
    where = f" WHERE {' AND '.join(filters)}" if filters else ""
    return relations.ask(f"FROM {relation}{where} ORDER BY {', '.join(ids)}", given, settings=settings)


def counts(relations: Relations, target: Mapping[str, int | None]) -> dict[str, NDArray[np.int32]]:
    """Return the counts of every training example on one target, or on itself: int32 arrays [train]."""
    named = {name: row for name, row in target.items() if row is not None}
    if len(named) > 1:
        raise InvalidInput(f"{' and '.join(named)} are both given", hint="name one target, or none")
    mask, n_models = relations.mask, relations.snapshot.n_models
    n_in = bits.count(mask)
    if named:
        ((name, given),) = named.items()
        row = relations.row_of(_set_of(name), given, None, name)
        correct = relations.correct(_set_of(name))[row]
        k_in, k_all = bits.count_and(mask, correct), bits.count(correct)
    else:
        own = relations.ask("SELECT k_in, n_correct FROM train_examples ORDER BY id")
        k_in, k_all = (values_of(own.column(name)) for name in ("k_in", "n_correct"))
    return {"n_in": n_in, "n_out": n_models - n_in, "k_in": k_in, "k_out": k_all - k_in}


def named_once(given: Mapping[str, tuple[int | None, str | None]]) -> tuple[str, int | None, str | None]:
    """Return the one column that was given an id or a key, and these.

    Raises:
        InvalidInput: none, more than one, or both an id and a key.
    """
    named = [
        (column, identifier, key)
        for column, (identifier, key) in given.items()
        if identifier is not None or key is not None
    ]
    if len(named) != 1 or None not in named[0][1:]:
        wanted = " or ".join(f"--{column.replace('_', '-')}" for column in given)
        found = "none" if not named else "more than one"
        raise InvalidInput(
            f"name exactly one example, {found} was given", hint=f"use one of {wanted}, or its key"
        )
    return named[0]


def _set_of(column: str) -> str:
    return layout.TEST if column == "test_id" else layout.TRAIN


def sql(
    relations: Relations,
    statement: str,
    choice: IntervalChoice,
    *,
    k: int | None = None,
    max_pairs: int = MAX_PAIRS,
    timeout: float = TIMEOUT_SECONDS,
) -> pa.Table:
    """Run a user's statement over the relations, read-only and without access to files or the network."""
    _require_sql(statement, k, max_pairs)
    timeout = require_timeout(timeout)
    settings = choice.parameters(NAMED_INTERVALS)
    table = relations.ask(statement, settings=settings, models=True, max_pairs=max_pairs, timeout=timeout)
    return table if k is None else table.slice(0, k)


def sql_batches(  # noqa: PLR0913 - the statement, its limits and its intervals
    relations: Relations,
    statement: str,
    choice: IntervalChoice,
    *,
    k: int | None = None,
    as_text: Kind = out_of_python,
    max_pairs: int = MAX_PAIRS,
    timeout: float = TIMEOUT_SECONDS,
) -> pa.RecordBatchReader:
    """Run a user's statement as `sql` does; its rows are read while they are computed."""
    _require_sql(statement, k, max_pairs)
    timeout = require_timeout(timeout)
    settings = choice.parameters(NAMED_INTERVALS)
    batches = relations.stream(statement, settings, as_text, max_pairs=max_pairs, timeout=timeout)
    schema = next(batches)
    return pa.RecordBatchReader.from_batches(schema, batches if k is None else _first(k, batches))


def require_timeout(seconds: float) -> float:
    """Return how long a statement may run, within what timers can count.

    Raises:
        InvalidInput: not above 0.
    """
    if not seconds > 0:
        raise InvalidInput(f"--timeout {seconds:g} is not above 0", hint="give seconds, such as --timeout 60")
    return min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS)


def _require_sql(statement: str, k: int | None, max_pairs: int) -> None:
    if not statement.strip():
        raise InvalidInput("an empty statement", hint='write e.g. memdb sql "SELECT * FROM memorization"')
    if max_pairs < 1:
        raise InvalidInput(f"--max-pairs {max_pairs} is not above 0", hint="raise it")
    if k is not None:
        require_k(k)


def _first(k: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the first k rows."""
    for batch in batches:
        yield batch.slice(0, k)
        k -= batch.num_rows
        if k <= 0:
            return


def _require_models(relations: Relations) -> None:
    if relations.snapshot.n_models == 0:
        raise NotEnoughModels(
            f"{relations.snapshot.url} has no models yet",
            hint="train some with `memdb train --add 100`",
        )


def _base_of(snapshot: Snapshot) -> dict[str, object]:
    """Return what is taken in of the store that this one extends, NULL where it extends none."""
    base = snapshot.base
    return {
        "base": shown(base.url) if base else None,
        "base_store_id": base.manifest.store_id if base else None,
        "base_snapshot": base.record.number if base and base.record else None,
        "base_newest_snapshot": base.newest if base else None,
        "n_base_models": base.n_models if base else 0,
    }


def info(relations: Relations, choice: IntervalChoice) -> pa.Table:
    """Return one row about the store."""
    snapshot = relations.snapshot
    manifest = snapshot.manifest
    settings = choice.parameters(NAMED_INTERVALS)
    derived = derived_of(snapshot)
    of_models = (
        {"n_models": snapshot.n_models, **derived[1].models.to_document()}
        if derived
        else relations.ask(schema("info_models.sql"), models=True).to_pylist()[0]
    )
    counted = {**of_models, **relations.ask(schema("info.sql"), settings=settings).to_pylist()[0]}
    diverged = (
        (model.model_id for _, model in snapshot.models if model.diverged) if counted["n_diverged"] else ()
    )
    row = {
        "store_id": manifest.store_id,
        "format": layout.FORMAT,
        "dataset": manifest.dataset,
        "dataset_import_path": manifest.imports.get("dataset"),
        "n_train": manifest.train.n_examples,
        "n_test": manifest.set_named(layout.TEST).n_examples,
        "n_classes": relations.n_classes,
        "recipe": manifest.recipe.name,
        "recipe_import_path": manifest.imports.get("recipe"),
        "recipe_version": manifest.recipe.version,
        "recipe_options": canonical_json(manifest.recipe.options).decode(),
        "recipe_fingerprint": manifest.recipe.fingerprint,
        "subset_scheme": manifest.subset_scheme,
        "subset_fraction": manifest.subset_fraction,
        "outcomes": ",".join(outcome.name for outcome in manifest.outcomes),
        "created_at": manifest.created_at,
        "n_repeats": snapshot.n_repeats,
        "n_retracted": snapshot.n_retracted,
        "n_set_aside": len(snapshot.set_aside),
        "n_blocks": len(snapshot.record.blocks) if derived and snapshot.record else len(snapshot.blocks),
        "n_loose_segments": 0 if derived else len(snapshot.loose),
        "newest_snapshot": snapshot.record.number if snapshot.record else None,
        **_base_of(snapshot),
        "put_if_absent": manifest.put_if_absent,
        **counted,
        "diverged": sorted(diverged),
    }
    kind = pa.list_(pa.string())  # also where it is empty
    table = pa.Table.from_pylist([row])
    at = table.column_names.index("diverged")
    return table.set_column(at, "diverged", pa.array([row["diverged"]], kind))
