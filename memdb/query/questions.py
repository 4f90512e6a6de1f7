"""Questions to a snapshot: each one a file of SQL, its parameters checked, its rows as an Arrow table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from memdb import layout
from memdb.documents import canonical_json
from memdb.errors import InvalidInput, NotEnoughModels
from memdb.query.connection import (
    INTERVALS,
    MAX_PAIRS,
    Relations,
    fixed_z,
    require_interval,
    require_level,
    schema,
)

NAMED_INTERVALS = ("fixed", "anytime", "simultaneous")
MAX_ROWS = 2**31 - 1
DIRECTIONS = ("helps", "hurts", "both")
TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class IntervalChoice:
    """Which interval to give with a score, and its level."""

    interval: str
    level: float = 0.95

    def parameters(self, allowed: tuple[str, ...] = INTERVALS) -> dict[str, Any]:
        """Return what the SQL needs, after checking both.

        Raises:
            InvalidInput: an unknown or unsuitable kind, or a level outside (0, 1).
        """
        level = require_level(self.level)
        interval = require_interval(self.interval, allowed)
        return {"interval": interval, "alpha": 1 - level, "fixed_z": fixed_z(level)}


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


def top_memorized(relations: Relations, k: int, class_name: str | None, choice: IntervalChoice) -> pa.Table:
    """Return the k training examples with the highest memorization, NULLs last."""
    _require_models(relations)
    label = None if class_name is None else relations.label_of(class_name)
    parameters = {"label": label, "k": require_k(k), **choice.parameters()}
    return relations.ask(schema("top_memorized.sql"), parameters)


def top_influence(
    relations: Relations, side: Side, row: int, k: int, filters: Mapping[str, Any], choice: IntervalChoice
) -> pa.Table:
    """Return the k strongest influences with one side fixed; filters are ``direction`` and ``same_class``."""
    _require_models(relations)
    if filters["direction"] not in DIRECTIONS:
        raise InvalidInput(
            f"unknown direction {filters['direction']!r}", hint=f"use one of {', '.join(DIRECTIONS)}"
        )
    sql = schema("top_influence.sql")
    for name in ("relation", "fixed", "listed", "target"):
        sql = sql.replace(f":{name}", getattr(side, name))
    other_only = side.fixed == "target_id"
    parameters = {"id": row, "k": require_k(k), "other_only": other_only, **filters, **choice.parameters()}
    return relations.ask(sql, parameters)


def score(
    relations: Relations, train_id: int, target: tuple[str, int] | None, choice: IntervalChoice
) -> pa.Table:
    """Return one memorization score, or the influence on one target: ``("test_id", 42)``."""
    _require_models(relations)
    settings = choice.parameters(NAMED_INTERVALS)
    statements = {
        None: "FROM memorization WHERE train_id = {train}",
        "test_id": "FROM influence WHERE train_id = {train} AND test_id = {target}",
        "target_id": "FROM train_influence WHERE train_id = {train} AND target_id = {target}",
    }
    column, row = target or (None, 0)
    sql = statements[column].format(train=int(train_id), target=int(row))
    return relations.ask(sql, settings=settings)


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
    if not statement.strip():
        raise InvalidInput("an empty statement", hint='write e.g. memdb sql "SELECT * FROM memorization"')
    if max_pairs < 1 or timeout <= 0:
        raise InvalidInput(
            f"--max-pairs {max_pairs} and --timeout {timeout:g} must be above 0", hint="raise them"
        )
    settings = choice.parameters(NAMED_INTERVALS)
    table = relations.ask(statement, settings=settings, max_pairs=max_pairs, timeout=timeout)
    return table if k is None else table.slice(0, require_k(k))


def mean_half_width(relations: Relations, choice: IntervalChoice) -> float | None:
    """Return the mean half-width of the memorization intervals; None where no example has one."""
    value = (
        relations.ask(schema("mean_half_width.sql"), choice.parameters(NAMED_INTERVALS)).column(0)[0].as_py()
    )
    return None if value is None else float(value)


def require_k(k: int) -> int:
    """Refuse lists without rows.

    Raises:
        InvalidInput: less than one row, or more than ids can number.
    """
    if not 1 <= k <= MAX_ROWS:
        raise InvalidInput(f"-k {k} is not a number from 1 to {MAX_ROWS:,}", hint="use e.g. -k 20")
    return k


def _require_models(relations: Relations) -> None:
    if relations.snapshot.n_models == 0:
        raise NotEnoughModels(
            f"{relations.snapshot.url} has no models yet",
            hint="train some with `memdb train --add 100`",
        )


def info(relations: Relations, choice: IntervalChoice) -> pa.Table:
    """Return one row about the store."""
    snapshot = relations.snapshot
    manifest = snapshot.manifest
    examples = relations.examples[layout.TRAIN]
    counted = relations.ask(schema("info.sql")).to_pylist()[0]
    row = {
        "store_id": manifest.store_id,
        "format": layout.FORMAT,
        "dataset": manifest.dataset,
        "n_train": manifest.train.n_examples,
        "n_test": manifest.set_named(layout.TEST).n_examples,
        "n_classes": len(examples.class_names) or int(examples.labels.max()) + 1,
        "recipe": manifest.recipe.name,
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
        "n_blocks": len(snapshot.blocks),
        "n_loose_segments": len(snapshot.loose),
        "newest_snapshot": snapshot.record.number if snapshot.record else None,
        "put_if_absent": manifest.put_if_absent,
        **counted,
        "mean_half_width": mean_half_width(relations, choice),
    }
    return pa.Table.from_pylist([row])
