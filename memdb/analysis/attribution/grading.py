"""Several ways to score pairs beside each other: how well does each predict models that it has not seen?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from memdb.analysis.attribution.estimates import Attribution, Estimates, Given
from memdb.analysis.attribution.estimators import ESTIMATORS, require_estimators
from memdb.analysis.attribution.lds import (
    Bootstrap,
    Exam,
    Progress,
    ceiling_facts,
    of_ceiling,
    require_orientation,
)
from memdb.analysis.attribution.linear_share import linear_share
from memdb.analysis.attribution.model_outcomes import FEWEST, positions_of, require_test_outcome
from memdb.analysis.attribution.pilots import Ids, order_of_models, pilots_of, require_count, some_tests
from memdb.errors import NotEnoughModelsError
from memdb.format import layout
from memdb.query.examples import require_examples
from memdb.query.relations import Relations
from memdb.store import Snapshot
from memdb.wording import count, verb

SCHEMA = pa.schema(
    [
        ("estimator", pa.string()), ("n_models", pa.int64()), ("mean_lds", pa.float64()),
        ("lo", pa.float64()), ("hi", pa.float64()), ("of_ceiling", pa.float64()), ("forecast", pa.float64()),
        ("n_scored", pa.int64()), ("n_pilots", pa.int64()), ("n_held_out", pa.int64()),
        ("n_tests", pa.int64()), ("outcome", pa.string()), ("h2", pa.float64()), ("h2_lo", pa.float64()),
        ("h2_hi", pa.float64()), ("h2_permuted", pa.float64()), ("h2_permuted_se", pa.float64()),
        ("ceiling", pa.float64()), ("ceiling_lo", pa.float64()), ("ceiling_hi", pa.float64()),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared, and on what.

    Attributes:
        estimators: of `ESTIMATORS`; None for all that the store has what it takes for.
        scores: somebody's scores, by the name that they are listed under.
        n_pilots: models that estimators compute from; None for half, or all but the held-out ones.
        model_ids: the held-out models, on which scores are graded; None for all but the pilots.
        n_tests: test examples that are graded, drawn at random.
    """

    estimators: Sequence[str] | None = None
    scores: Mapping[str, Attribution] | None = None
    n_pilots: int | None = None
    model_ids: Sequence[str] | None = None
    n_tests: int = 500
    outcome: str | None = None


def compare_lds(
    relations: Relations,
    wanted: Comparison,
    bootstrap: Bootstrap,
    progress: Progress = lambda _done, _total: None,
) -> pa.Table:
    """Return one row per estimator and file: its mean score, and the share of the ceiling that it reaches.

    Raises:
        InvalidInputError: an unknown estimator or outcome, scores of another shape, or numbers out of range.
        NotEnoughModelsError: too few models for pilots and others.
    """
    snapshot = relations.snapshot
    n_test = require_examples(snapshot, layout.TEST)
    name = require_test_outcome(snapshot, wanted.outcome)
    tests = some_tests(n_test, require_count("tests", wanted.n_tests, 1, 2**31))
    positions, held_out = _parts(snapshot, wanted)
    pilots = pilots_of(relations, positions)
    exam = Exam(relations, name, held_out, tests, bootstrap)
    candidates = _candidates(relations, pilots, name, wanted)
    share = linear_share(relations, name, bootstrap.level)
    common: dict[str, Any] = {
        "n_pilots": len(positions), "n_held_out": len(held_out), "n_tests": len(tests), "outcome": name,
        **ceiling_facts(share),
    }  # fmt: skip
    rows = []
    for step, (title, (estimates, n_models)) in enumerate(candidates.items()):
        means = exam.grade(estimates, _part(progress, step, len(candidates))).means()
        of_raw = share is not None and title == "raw"
        row = {
            "estimator": title,
            "n_models": n_models,
            **{name: means[f"mean_{name}"] for name in ("lo", "hi")},
            "of_ceiling": of_ceiling(means["mean_lds"], share),
            "forecast": share.forecast(len(positions)) if share is not None and of_raw else None,
        }
        rows.append({**common, **means, **row})
    return pa.Table.from_pylist(rows, SCHEMA)


def _parts(snapshot: Snapshot, wanted: Comparison) -> tuple[Ids, Ids]:
    """Return the positions of pilots and of the models that grade, in order."""
    if snapshot.n_models < 2 * FEWEST:
        raise NotEnoughModelsError(
            f"{snapshot.url} has {count(snapshot.n_models, 'model')}, too few to compute scores from "
            f"some and grade "
            "them on others",
            hint=f"train at least {2 * FEWEST}",
        )
    order = order_of_models(snapshot)
    if wanted.model_ids is None:
        half = snapshot.n_models // 2 if wanted.n_pilots is None else wanted.n_pilots
        n_pilots = require_count("pilots", half, FEWEST, snapshot.n_models - FEWEST)
        return np.sort(order[:n_pilots]), np.sort(order[n_pilots:])
    held_out = np.sort(positions_of(snapshot, wanted.model_ids))
    free = order[~np.isin(order, held_out)]
    if len(free) < FEWEST:
        raise NotEnoughModelsError(
            f"{count(len(free), 'model')} {verb(len(free))} not held out, too few to compute scores from",
            hint=f"hold out fewer: {FEWEST} or more must be left",
        )
    n_pilots = len(free) if wanted.n_pilots is None else wanted.n_pilots
    return np.sort(free[: require_count("pilots", n_pilots, FEWEST, len(free))]), held_out


def _candidates(
    relations: Relations, pilots: Relations, outcome: str, wanted: Comparison
) -> dict[str, tuple[Estimates, int | None]]:
    """Return what is graded, by name, with the number of models behind it if that is known."""
    sizes = [relations.snapshot.manifest.set_named(name).n_examples for name in (layout.TEST, layout.TRAIN)]
    candidates: dict[str, tuple[Estimates, int | None]] = {}
    for title, scores in (wanted.scores or {}).items():
        require_orientation(scores, *sizes)
        candidates[title] = Given(scores), None
    for title in require_estimators(pilots, wanted.estimators, scoring=True):
        candidates[title] = ESTIMATORS[title].make(pilots, outcome), pilots.snapshot.n_models
    return candidates


def _part(progress: Progress, place: int, n_parts: int) -> Progress:
    """Return the progress callback of one of several equal parts."""
    return lambda done, total: progress(place * total + done, n_parts * total)
