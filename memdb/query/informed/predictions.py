"""The questions that calibrated predictions answer (see `Answers`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from memdb.errors import InvalidInputError
from memdb.query import counted
from memdb.query.answers import ids_of, relation_of, rows_of, rows_with
from memdb.query.examples import ExampleRef, require_models
from memdb.query.informed.listed import top_influence
from memdb.query.informed.pairs import informed_pairs, with_raw_as_informed
from memdb.query.informed.relations import InformedRelations
from memdb.query.intervals import IntervalSpec
from memdb.query.options import DIRECTIONS, PairOptions, RankedQuery, require_k
from memdb.query.questions import ModelAnswers
from memdb.query.templates import template

ORDERS = ("informed", "influence", "lo")
DEFAULTS = {"shrunk": "informed"}  # what lists are ranked by where they are not told


@dataclass(frozen=True, slots=True)
class InformedAnswers:
    """Calibrated predictions of influences on test examples; raw ones where the prior explains nothing."""

    relations: InformedRelations

    @property
    def facts(self) -> Mapping[str, Any]:
        """What an answer says of its estimator: `Predictor.facts`."""
        return self.relations.predictor.facts()

    def top_memorized(self, class_name: str | None, query: RankedQuery) -> pa.Table:  # noqa: ARG002
        """Refuse: predictions are of influences.

        Raises:
            InvalidInputError: always.
        """
        raise _only_test_examples("memorization")

    def top_influence(self, fixed: ExampleRef, query: RankedQuery, *, same_class: bool = False) -> pa.Table:
        """Return the influences that rank first by their prediction, NULLs last."""
        require_models(self.relations.snapshot)
        if fixed.column == "target_id":
            raise _only_test_examples("influences on training examples")
        order = _require_order(query)
        if self.relations.predictor.why_raw is not None:
            by = "shrunk" if order == "informed" else order
            raw = ModelAnswers(self.relations.raw)
            asked = replace(query, order=replace(query.order, by=by))
            return with_raw_as_informed(raw.top_influence(fixed, asked, same_class=same_class))
        if counted.can_count(self.relations.raw):
            return top_influence(self.relations, fixed, query, order, same_class=same_class)
        listed = "test_id" if fixed.column == "train_id" else "train_id"
        key = query.order.key(order)
        return self.relations.ask(
            template("top_informed.sql", fixed=fixed.column, listed=listed, key=key),
            {"id": fixed.row, "same_class": same_class, "k": query.k},
            interval=IntervalSpec("fixed", query.interval.level),
        )

    def score(self, train_id: int, target: ExampleRef | None, interval: IntervalSpec) -> pa.Table:
        """Return the influence on one test example."""
        return self.scores(relation_of(target), ids_of(train_id, target), interval)

    def scores(
        self,
        relation: str,
        ids: Mapping[str, int | None],
        interval: IntervalSpec,
        *,
        same_class: bool = False,
    ) -> pa.Table:
        """Return the rows with these ids, by ascending ids; ``None`` matches any id."""
        require_models(self.relations.snapshot)
        if relation != "influence":
            what = "memorization" if relation == "memorization" else "influences on training examples"
            raise _only_test_examples(what)
        given = rows_of(self.relations, relation, ids)
        sql = rows_with(relation, given, ids, same_class=same_class)
        return self.relations.ask(sql, given, interval=interval.for_named())

    def pairs(self, options: PairOptions) -> pa.Table:
        """Return the pairs with the strongest predictions: by test id, then from the strongest."""
        return informed_pairs(self.relations, options)


def _require_order(query: RankedQuery) -> str:
    require_k(query.k)
    order = DEFAULTS.get(query.order.by, query.order.by)
    for word, given, allowed in (
        ("order", order, ORDERS),
        ("direction", query.order.direction, DIRECTIONS),
        ("fdr", query.order.fdr, ("once",)),
    ):
        if given not in allowed:
            raise InvalidInputError(
                f"{word} {given!r} does not go with predictions",
                hint=f"use {'one of ' if len(allowed) > 1 else ''}{', '.join(allowed)}",
                parameter=word,
            )
    if query.order.ranks:
        raise InvalidInputError(
            "there are no rank intervals of predictions", hint="omit ranks", parameter="ranks"
        )
    return order


def _only_test_examples(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"predictions are of influences on test examples, not of {what}",
        hint="omit estimator, or name a test example",
        parameter="estimator",
    )
