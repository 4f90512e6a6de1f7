"""Training examples that meet a condition in SQL, such as ``memorization > .5 and q < .1``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from memdb.errors import InvalidInputError
from memdb.query.answers import Answers
from memdb.query.arrow import column, values_of
from memdb.query.intervals import IntervalSpec
from memdb.query.options import USER_LIMITS, Order, RankedQuery
from memdb.query.relations import Relations
from memdb.query.statements import condition_of

OF_LIST = ["shrunk", "q_value"]  # beside the columns of the relations
SHOWN = ["train_id", "key", "label", "class_name", "memorization", "lo", "hi", *OF_LIST]
MEETS = "meets_condition"


def examples_meeting(answers: Answers, condition: str, interval: IntervalSpec) -> pa.Table:
    """Return the training examples for which a condition is true, by ascending ids.

    It may name every column of ``train_examples`` and ``memorization``, and ``shrunk`` and ``q_value`` (or
    ``q``) of the list of all of them. Where it is NULL, as comparisons with a missing score are, the example
    is not among them.

    Raises:
        InvalidInputError: not one condition, or one that no example meets, or all do.
    """
    text = condition_of(condition)
    relations, candidates = answers.relations, _candidates(answers, interval)
    rows = _answered(relations, condition, text, candidates, interval)
    if rows.num_rows != candidates.num_rows or rows.column_names != [*SHOWN, MEETS]:
        raise InvalidInputError(
            f"the condition {condition!r} is not one value for each example",
            hint="write e.g. 'memorization > .5 and q < .1', without UNNEST and with COLUMNS of one column",
        )
    meets = rows.column(MEETS)
    if not (pa.types.is_boolean(meets.type) or meets.null_count == len(meets)):
        raise InvalidInputError(
            f"the condition {condition!r} is {meets.type}, neither true nor false",
            hint="compare it with something, as in 'memorization > .5'",
        )
    chosen = np.flatnonzero(values_of(meets)) if pa.types.is_boolean(meets.type) else np.zeros(0, np.int64)
    if len(chosen) in {0, len(meets)}:
        which = "every" if len(chosen) else "no"
        raise InvalidInputError(
            f"{which} training example of {relations.snapshot.url} meets the condition {condition!r}",
            hint='`memdb sql "SUMMARIZE memorization"` shows what its columns hold',
        )
    return rows.select(SHOWN).take(column(chosen))


def _answered(
    relations: Relations, condition: str, text: str, candidates: pa.Table, interval: IntervalSpec
) -> pa.Table:
    """Return what a condition is of each candidate; say what it may name if it cannot be told."""
    try:
        return relations.ask(
            f"SELECT {', '.join(SHOWN)}, ({text}) AS {MEETS} FROM candidates ORDER BY train_id",  # noqa: S608
            interval=interval,
            tables={"candidates": candidates},
            models=True,
            limits=USER_LIMITS,
        )
    except InvalidInputError as error:
        raise InvalidInputError(
            f"the condition {condition!r} has no answer: {error}",
            hint=f"it may name {', '.join(candidates.column_names)}",
        ) from error


def _candidates(answers: Answers, interval: IntervalSpec) -> pa.Table:
    """Return all that a condition may name, one row a training example."""
    table = answers.relations.ask("FROM train_examples ORDER BY id", models=True)
    table = table.append_column("train_id", table.column("id"))
    scores = answers.scores("memorization", {"train_id": None}, interval)
    query = RankedQuery(table.num_rows, Order(), IntervalSpec("selected", interval.level))
    ranked = answers.top_memorized(None, query)
    for name in OF_LIST:
        if name not in ranked.column_names:  # of imported scores, without assumed models
            ranked = ranked.append_column(name, pa.nulls(ranked.num_rows, pa.float64()))
    ranked = ranked.select(["train_id", *OF_LIST])
    for rows in (_of_each(scores, table.num_rows), _of_each(ranked, table.num_rows)):
        for name in rows.column_names:
            if name not in table.column_names:
                table = table.append_column(name, rows.column(name))
    return table.append_column("q", table.column("q_value"))


def _of_each(rows: pa.Table, n_examples: int) -> pa.Table:
    """Return one row an example, by ascending ids; NULLs for those that ``rows`` lacks."""
    row_of = np.zeros(n_examples, dtype=np.int64)
    has_one = np.zeros(n_examples, dtype=np.bool_)
    ids = values_of(rows.column("train_id"))
    row_of[ids], has_one[ids] = np.arange(rows.num_rows), True
    return rows.take(column(row_of, has_one))
