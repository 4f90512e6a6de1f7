"""Answers with tests of the pairs alone that a prior ranks first (see `query.informed.screening`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.format import bits
from memdb.query import arrow
from memdb.query.examples import ExampleRef, require_models
from memdb.query.informed.evidence import Outcomes
from memdb.query.informed.predictor import LEAST_MODELS, Predictor
from memdb.query.informed.prior import Prior
from memdb.query.informed.screening import strongest, tested
from memdb.query.intervals import IntervalSpec
from memdb.query.options import Estimator, PairOptions, RankedQuery, require_k
from memdb.query.pairs import scores
from memdb.query.pairs.types import PairBits, PairBlock, PairChoice
from memdb.query.relations import Relations
from memdb.query.statistics import FDR, q_values
from memdb.wording import verb

SCREENED_COLUMNS = [
    "train_id", "test_id", "train_label", "test_label", "same_class", "influence", "lo", "hi", "q_value",
    "n_in", "n_out", "k_in", "k_out", "p_in", "p_out", "memorization",
]  # fmt: skip
OF_ONE = 10  # one pair in as many models is tested for one example, where all pairs get one a model


@dataclass(frozen=True)
class ScreenedAnswers:
    """Pairs that the prior ranks first, from the smallest q-value, estimated by the models that test them."""

    relations: Relations
    predictor: Predictor
    estimator: Estimator

    @property
    def facts(self) -> Mapping[str, Any]:
        """What an answer says of its tests."""
        outcomes, _ = self._screening()
        return {
            "estimator": "screened",
            "prior": self.predictor.source,
            "n_prior_models": outcomes.n_models - outcomes.n_testing,
            "n_testing_models": outcomes.n_testing,
        }

    def top_influence(self, fixed: ExampleRef, query: RankedQuery, *, same_class: bool = False) -> pa.Table:
        """Return the first k pairs of an example."""
        require_k(query.k)
        if fixed.column == "target_id":
            raise InvalidInputError(
                "the prior is of influences on test examples, not on training examples",
                hint="name a test example, or omit screen",
                parameter="screen",
            )
        n_models = self.relations.snapshot.n_models
        n_screened = self.estimator.n_screened(max(1, n_models // OF_ONE))
        choice = PairChoice(top=1, same_class=same_class, direction=query.order.direction)
        return self._tested(n_screened, choice, query.interval, fixed).slice(0, query.k)

    def pairs(self, options: PairOptions) -> pa.Table:
        """Return all pairs that were tested."""
        chosen = {
            name for name in ("top", "min_influence", "min_memorization") if options.get(name) is not None
        }
        if chosen:
            raise InvalidInputError(
                f"{min(chosen)} chooses pairs by what the models that test them got right",
                hint="omit it: screen says how many pairs are tested, and the prior which",
                parameter=min(chosen),
            )
        given: PairOptions = {**options, "top": 1}
        interval = IntervalSpec(options.get("interval", "selected"), options.get("level", 0.95))
        n_screened = self.estimator.n_screened(self.relations.snapshot.n_models)
        return self._tested(n_screened, scores.choice_of(given, self.relations.snapshot), interval)

    def _screening(self) -> tuple[Outcomes, Prior]:
        require_models(self.relations.snapshot)
        if self.predictor.why_no_prior is not None:
            raise InvalidInputError(
                f"nothing can be screened: {self.predictor.why_no_prior}",
                hint="give scores of your own with screen_by",
                parameter="screen_by",
            )
        if self.relations.snapshot.n_models < LEAST_MODELS:
            raise NotEnoughModelsError(
                f"screening takes {LEAST_MODELS} models, and there "
                f"{verb(self.relations.snapshot.n_models)} {self.relations.snapshot.n_models}",
                hint="train more with `memdb train --add 100`",
            )
        return self.predictor.screening

    def _tested(
        self, n_screened: int, choice: PairChoice, interval: IntervalSpec, fixed: ExampleRef | None = None
    ) -> pa.Table:
        outcomes, prior = self._screening()
        bits_of = testing(scores.pair_bits(self.relations), outcomes)
        train, test = _chosen(prior, bits_of, n_screened, choice, fixed)
        tests = tested(outcomes, train, test, choice.direction)
        q = q_values(tests.p)
        evidence, n_ranked = scores.Evidence(bits_of), max(1, len(train))
        n_found = max(1, int((q <= FDR).sum()))
        z = evidence.interval_z(interval.of_list(n_found, n_ranked))
        block = PairBlock(0, train.astype(np.int32), test.astype(np.int32), tests.k_in.astype(np.int32), None)
        table = evidence.table([block], {"z": z})
        order = np.lexsort((train, test, tests.p, q))
        columns = [
            arrow.column(q) if name == "q_value" else table.column(name).combine_chunks()
            for name in SCREENED_COLUMNS
        ]
        answer = pa.Table.from_arrays(columns, SCREENED_COLUMNS).take(arrow.column(order))
        return answer.append_column("n_ranked", arrow.column(np.full(len(order), len(order), dtype=np.int32)))


def testing(every: PairBits, outcomes: Outcomes) -> PairBits:
    """Return the counts over the models that test alone."""
    return replace(
        every,
        n_models=outcomes.n_testing,
        n_in=bits.count(every.masks & outcomes.testing),
        n_correct=bits.count(every.correct & outcomes.testing),
    )


def _chosen(
    prior: Prior, of: PairBits, n_screened: int, choice: PairChoice, fixed: ExampleRef | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs to test, of one example or of all; those without both arms cannot be."""
    trains = np.flatnonzero((of.n_in > 0) & (of.n_in < of.n_models))
    tests = np.arange(len(of.test_labels))
    if fixed is not None:
        trains = trains[trains == fixed.row] if fixed.column == "train_id" else trains
        tests = np.array([fixed.row]) if fixed.column == "test_id" else tests
    if not choice.same_class:
        train, test, _ = strongest(prior, n_screened, trains, tests, choice.direction)
        return train, test
    parts = [
        strongest(
            prior,
            n_screened,
            trains[of.train_labels[trains] == label],
            tests[of.test_labels[tests] == label],
            choice.direction,
        )
        for label in np.unique(of.test_labels[tests])
    ]
    strength = np.concatenate([part[2] for part in parts])
    train, test = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
    order = np.lexsort((test, train, -strength))[:n_screened]
    return train[order], test[order]
