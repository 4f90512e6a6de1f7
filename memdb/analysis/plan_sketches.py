"""What gradient sketches of some models cost: bytes, and seconds beside those of training."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import pyarrow as pa

from memdb.format.sketches import DEFAULT_SIZE, SKETCH_DTYPE, Projection, require_n_models
from memdb.store import Snapshot
from memdb.store.read_sketches import Sketched, find_sketches, projection_in_use

BYTES = int(SKETCH_DTYPE.removeprefix("float")) // 8  # of a number; compression saves a few percent
SCHEMA = pa.schema(
    [
        ("goal", pa.string()), ("sketch_size", pa.int64()), ("n_sketched_needed", pa.int64()),
        ("n_sketched_more", pa.int64()), ("bytes_per_model", pa.int64()), ("bytes_more", pa.int64()),
        ("seconds_per_model", pa.float64()), ("share_of_training", pa.float64()),
        ("seconds_more", pa.float64()),
    ]
)  # fmt: skip


def plan_sketches(snapshot: Snapshot, n_models: int, size: int | None) -> pa.Table:
    """Return one row: what it takes until this many models are sketched.

    Raises:
        InvalidInputError: a number of models or a size out of range.
    """
    wanted = require_n_models(n_models, "sketches")
    current, sketched = projection_in_use(snapshot), find_sketches(snapshot)
    k = Projection(size or (current.size if current else DEFAULT_SIZE), 0).size
    n_examples = sum(info.n_examples for info in snapshot.manifest.sets)
    stored = [one.n_bytes for one in sketched if one.projection.size == k]
    a_model = round(fmean(stored)) if stored else BYTES * k * n_examples
    more = max(0, wanted - len(sketched))
    seconds, training = seconds_of(snapshot, sketched)
    row = {
        "goal": "sketches",
        "sketch_size": k,
        "n_sketched_needed": wanted,
        "n_sketched_more": more,
        "bytes_per_model": a_model,
        "bytes_more": more * a_model,
        "seconds_per_model": seconds,
        "share_of_training": None if seconds is None or not training else seconds / training,
        "seconds_more": None if seconds is None else more * seconds,
    }
    return pa.Table.from_pylist([row], SCHEMA)


def seconds_of(snapshot: Snapshot, sketched: list[Sketched]) -> tuple[float | None, float | None]:
    """Return the seconds that sketching a model took, and training it; None where they cannot be told apart.

    Seconds are those of a batch, divided among its models: batches with sketches took longer than others.
    """
    positions = {one.model for one in sketched}
    batches: defaultdict[str, list[float]] = defaultdict(list)
    for origin, model in snapshot.models:
        batches[origin].append(model.seconds)
    longer = {origin for at, (origin, _) in enumerate(snapshot.models) if at in positions}
    plain = [seconds for origin, batch in batches.items() if origin not in longer for seconds in batch]
    if not plain or not longer:
        return None, None
    training = fmean(plain)
    rest = sum(seconds - training for origin in longer for seconds in batches[origin])
    return max(0.0, rest / len(sketched)), training
