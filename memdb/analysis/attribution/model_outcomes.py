"""What models did on test examples: the outcome that a question is about, and its values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.format import bits, layout
from memdb.format.manifest import LOGIT_CONFIDENCE
from memdb.query.relations import Relations
from memdb.store import Snapshot
from memdb.wording import count, verb

FEWEST = 5  # models for a correlation
PREFERRED = (LOGIT_CONFIDENCE.name, "margin", "correct")
Ids = NDArray[np.int64]
Numbers = NDArray[np.float64]


def require_test_outcome(snapshot: Snapshot, outcome: str | None) -> str:
    """Return the name of an outcome of test examples; by default the first of `PREFERRED` that is complete.

    Raises:
        InvalidInputError: the store keeps no such outcome.
    """
    held = {item.name for item in snapshot.manifest.outcomes if layout.TEST in item.sets}
    if outcome is None:  # copies may exclude outcomes of some models
        kept = [name for name in held if snapshot.is_complete(f"{layout.TEST}/{name}")]
        return next(name for name in PREFERRED if name in kept or name == "correct")
    if outcome not in held:
        raise InvalidInputError(
            f"{snapshot.url} keeps no outcome {outcome!r} of test examples",
            hint=f"it keeps {', '.join(sorted(held)) or 'none'}",
        )
    return outcome


def positions_of(snapshot: Snapshot, model_ids: Sequence[str] | None) -> Ids:
    """Return the positions of the models with these ids, or of all.

    Raises:
        InvalidInputError: an unknown id.
        NotEnoughModelsError: fewer than `FEWEST`.
    """
    positions = {model.model_id: position for position, (_, model) in enumerate(snapshot.models)}
    ids = list(positions) if model_ids is None else list(dict.fromkeys(model_ids))
    unknown = [identifier for identifier in ids if identifier not in positions]
    if unknown:
        raise InvalidInputError(
            f"{snapshot.url} has no model {unknown[0][:40]!r}",
            hint='`memdb sql "SELECT model_id FROM models"` lists them',
        )
    if len(ids) < FEWEST:
        raise NotEnoughModelsError(
            f"{count(len(ids), 'model')} {verb(len(ids))} too few for a correlation over models",
            hint=f"give at least {FEWEST}",
        )
    return np.array([positions[identifier] for identifier in ids], dtype=np.int64)


def outcomes_on_tests(relations: Relations, outcome: str, tests: Ids) -> Numbers:
    """Return the outcomes of all models on some test examples, in ascending order of ids, [tests, models].

    ``confidence`` is the probability that `LOGIT_CONFIDENCE` stands for. NaN in an outcome of a user's
    own counts as the least value.
    """
    snapshot = relations.snapshot
    if outcome == "correct":
        packed = relations.correct(layout.TEST)[tests].view(np.uint8)
        return bits.unpack(packed, snapshot.n_models).T.astype(np.float64)
    if outcome == "confidence":
        return relations.confidences[layout.TEST].rows(tests.astype(np.int32))[0]
    path = f"{layout.TEST}/{outcome}"
    height = snapshot.band_height(path)
    bands = np.split(tests, np.flatnonzero(np.diff(tests // height)) + 1) if len(tests) else []
    parts = [snapshot.outcome_values(path, (int(ids[0]), int(ids[-1]) + 1))[ids - ids[0]] for ids in bands]
    values = np.concatenate([np.empty((0, snapshot.n_models)), *parts]).astype(np.float64)
    return np.nan_to_num(values, nan=values.min(initial=0.0, where=~np.isnan(values)))
