"""The number of models whose raw influences predict others as well as is wanted, and what is within reach."""

from __future__ import annotations

from statistics import fmean

import pyarrow as pa

from memdb.analysis.attribution.linear_share import linear_share
from memdb.analysis.attribution.model_outcomes import require_test_outcome
from memdb.analysis.drawn import PILOT
from memdb.analysis.plan import MOST
from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.query.relations import Relations
from memdb.wording import count

SCHEMA = pa.schema(
    [
        ("goal", pa.string()), ("lds", pa.float64()), ("lds_now", pa.float64()), ("ceiling", pa.float64()),
        ("ceiling_lo", pa.float64()), ("ceiling_hi", pa.float64()), ("n_models_needed", pa.int64()),
        ("n_models_least", pa.int64()), ("n_models_most", pa.int64()), ("n_models_more", pa.int64()),
        ("seconds_more", pa.float64()), ("outcome", pa.string()),
    ]
)  # fmt: skip


def plan_lds(relations: Relations, lds: float, outcome: str | None, level: float) -> pa.Table:
    """Return one row: the models for this mean linear datamodeling score, and the most that any can have.

    Raises:
        InvalidInputError: a score that is not between 0 and 1, or an unknown outcome.
        NotEnoughModelsError: too few models to know what share of the outcome their masks explain.
    """
    if not 0 < lds < 1:
        raise InvalidInputError(
            f"lds {lds:g} is not between 0 and 1", hint="use e.g. lds=0.4", parameter="lds"
        )
    snapshot = relations.snapshot
    name = require_test_outcome(snapshot, outcome)
    share = linear_share(relations, name, level) if snapshot.n_models >= PILOT else None
    if share is None:
        raise NotEnoughModelsError(
            f"the outcomes of the {count(snapshot.n_models, 'model')} of {snapshot.url} do not tell how much "
            "of them follows from subsets",
            hint=f"train {PILOT} or more, which differ on some test example",
        )
    needed, least, most = (
        share.models_for(lds, MOST, ranked) for ranked in (share.ranked, share.ranked_hi, share.ranked_lo)
    )
    more = None if needed is None else max(0, needed - snapshot.n_models)
    lo, hi = share.ceiling_interval
    row = {
        "goal": "lds",
        "lds": lds,
        "lds_now": share.forecast(snapshot.n_models),
        "ceiling": share.ceiling,
        "ceiling_lo": lo,
        "ceiling_hi": hi,
        "n_models_needed": needed,
        "n_models_least": least,
        "n_models_most": most,
        "n_models_more": more,
        "seconds_more": None if more is None else more * fmean(m.seconds for _, m in snapshot.models),
        "outcome": name,
    }
    return pa.Table.from_pylist([row], SCHEMA)
