"""Read runs once before any is kept: identify the models, and check that they belong together."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import bits, layout
from memdb.format.manifest import LOGIT_CONFIDENCE, Outcome
from memdb.interop.run_formats import SETS, WHOLE, Outcomes, Runs, numbers, within
from memdb.store import Snapshot

LIMIT = 30.0  # of a logit confidence
DOMAIN = b"memdb-import-1"
BATCH_BYTES = 256 << 20
MOST_MODELS = 1024  # of a batch, which becomes a segment
UNLIKELY = 6.0  # standard deviations from the mean that sizes drawn with one fraction never reach


@dataclass(frozen=True)
class Survey:
    """For every model, in order: its id, the hash of its mask, and the size of its subset."""

    model_ids: Sequence[str]
    masks: Sequence[bytes]
    sizes: NDArray[np.int64]


def batches(runs: Runs) -> Iterator[tuple[int, NDArray[np.bool_], Outcomes]]:
    """Yield the first row, the masks and the outcomes of as many models as memory takes at once."""
    step = max(1, min(MOST_MODELS, BATCH_BYTES // max(1, runs.model_bytes)))
    for start in range(0, runs.n_models, step):
        stop = min(runs.n_models, start + step)
        masks, outcomes = runs.read(start, stop)
        _require_arrays(runs, stop - start, masks, outcomes)
        kept = {
            f"{name}/{item.name}": as_stored(
                item, outcomes[f"{name}/{item.name}"], f"{name}/{item.name} of {runs.place}"
            )
            for item in runs.outcomes
            for name in item.sets
            if name in runs.sizes
        }
        _require_known(runs, masks, kept)
        yield start, masks, kept


def _require_arrays(runs: Runs, n_models: int, masks: NDArray[np.bool_], outcomes: Outcomes) -> None:
    """Refuse arrays that are not what `Runs` says of them: a format may be a user's own."""
    expected = {layout.MASK: (masks, "b", runs.sizes[layout.TRAIN])} | {
        f"{name}/{item.name}": (outcomes.get(f"{name}/{item.name}"), "b" if item.kind == "bit" else "fiu", n)
        for item in runs.outcomes
        for name, n in runs.sizes.items()
        if name in item.sets
    }
    for path, (values, kinds, n_examples) in expected.items():
        if values is None:
            raise InvalidInputError(f"{runs.place} has no {path}", hint="return every outcome that is named")
        if values.shape != (n_models, n_examples) or values.dtype.kind not in kinds:
            wanted = f"{'bools' if kinds == 'b' else 'numbers'}, ({n_models}, {n_examples}): models first"
            raise InvalidInputError(
                f"{path} of {runs.place} is {values.dtype} {values.shape}", hint=f"return {wanted}"
            )


def as_stored(outcome: Outcome, values: NDArray[Any], place: str) -> NDArray[Any]:
    """Return the values of an outcome as they are stored, whatever format they came in.

    Infinite numbers, as of p = 1, become the largest that are kept; what exceeds the bounds of a probability
    by rounding is one.

    Raises:
        InvalidInputError: a value beyond bounds.
    """
    dtype = np.dtype(outcome.dtype)
    if outcome.kind == "bit":
        return values
    if outcome.name == LOGIT_CONFIDENCE.name:
        values = np.clip(values, -LIMIT, LIMIT)
        return values.astype(dtype)
    if outcome.kind == "unit":
        return within(values, 0, 1, place, "which is not a probability", "give numbers from 0 to 1").astype(
            dtype
        )
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    if outcome.kind == "category":
        what = f"which {dtype} cannot hold"
        return within(values, limits.min, limits.max, place, what, "give numbers of classes").astype(dtype)
    values = np.clip(values, float(limits.min), float(limits.max))
    return values.astype(dtype)


def _require_known(runs: Runs, masks: NDArray[np.bool_], outcomes: Outcomes) -> None:
    """Refuse missing values, except for what training saw of examples that were in the subset."""
    for path, values in outcomes.items():
        name, outcome = path.split("/")
        if values.dtype.kind == "f":
            outside = name == layout.TRAIN and outcome not in WHOLE
            numbers(np.where(masks, values, 0) if outside else values, f"{path} of {runs.place}")


def survey(runs: Runs, progress: Callable[[int, int], None]) -> Survey:
    """Read all of the runs once, and refuse those that a store cannot hold.

    Raises:
        InvalidInputError: no model, a set without examples, a subset of all or of no examples, two outcomes
            of one subset, or values that are not numbers.
    """
    ids: list[str] = []
    masks: list[bytes] = []
    sizes: list[int] = []
    first: dict[bytes, int] = {}
    if runs.n_models == 0:
        raise InvalidInputError(f"{runs.place} holds no models", hint="give at least one run")
    if layout.TRAIN not in runs.sizes or not set(runs.sizes) <= set(SETS):
        raise InvalidInputError(
            f"{runs.place} is of the sets {', '.join(runs.sizes)}",
            hint="give train, and test if there is one",
        )
    for name, n_examples in runs.sizes.items():
        if n_examples == 0:
            raise InvalidInputError(
                f"the {name} arrays of {runs.place} are of no examples",
                hint="test arrays may be omitted, training arrays not",
            )
    for start, mask, outcomes in batches(runs):
        progress(start, runs.n_models)
        for row, values in enumerate(mask):
            size, place = int(values.sum()), start + row
            if not 0 < size < len(values):
                raise InvalidInputError(
                    f"model {place} of {runs.place} was trained on {size:,} of {len(values):,} examples",
                    hint="each model needs a subset that leaves some examples in and some out",
                )
            packed = np.packbits(values, bitorder="little").tobytes()
            identifier, key = model_id(packed, outcomes, row), hashlib.sha256(packed).digest()
            earlier = first.setdefault(key, place)
            if earlier != place and ids[earlier] != identifier:
                raise InvalidInputError(
                    f"models {earlier} and {place} of {runs.place} have the same subset and other outcomes",
                    hint="keep one of them: scores and intervals count runs of different subsets, once each",
                )
            ids.append(identifier)
            masks.append(key)
            sizes.append(size)
    progress(runs.n_models, runs.n_models)
    return Survey(ids, masks, np.array(sizes, dtype=np.int64))


def model_id(packed_mask: bytes, outcomes: Mapping[str, NDArray[Any]], row: int) -> str:
    """Return an imported model's id: a hash of its mask and of its outcomes of kind bit, by their names.

    Confidences do not count: a run has the same id whether or not they are given.
    """
    digest = hashlib.sha256(DOMAIN + packed_mask)
    for path in sorted(outcomes):
        if outcomes[path].dtype == np.bool_:
            digest.update(b"\0" + path.encode() + b"\0")
            digest.update(np.packbits(outcomes[path][row], bitorder="little").tobytes())
    return digest.hexdigest()[:32]


def mask_hashes(snapshot: Snapshot) -> dict[bytes, str]:
    """Return the hash of every subset of a store, and the model that has it."""
    packed, found = snapshot.mask(), {}
    models = snapshot.model_ids
    for start in range(0, len(models), 8):
        some = models[start : start + 8]
        for row, mask in enumerate(bits.unpack(packed[:, start // 8 : start // 8 + 1], len(some))):
            found[hashlib.sha256(np.packbits(mask, bitorder="little").tobytes()).digest()] = some[row]
    return found


def require_fraction(sizes: NDArray[np.int64], n_train: int, fraction: float, place: str) -> None:
    """Refuse subsets that were not all drawn with this fraction.

    Their sizes may be equal, or vary as those of examples drawn one by one do. Others are a mixture of
    fractions: pooling one gives every pair an influence that it does not have.

    Raises:
        InvalidInputError: names the sizes.
    """
    spread = math.sqrt(n_train * fraction * (1 - fraction))
    rounding = 0.5  # of an exact size
    z = np.maximum(np.abs(sizes - fraction * n_train) - rounding, 0) / spread
    n = len(sizes)
    # Wilson and Hilferty: the cube root of a chi-square over its degrees of freedom is nearly normal
    overall = (np.cbrt(float((z**2).sum()) / n) - (1 - 2 / (9 * n))) / math.sqrt(2 / (9 * n))
    if z.max() > UNLIKELY or overall > UNLIKELY:
        low, high = int(sizes.min()), int(sizes.max())
        raise InvalidInputError(
            f"the subsets of {place} hold {low:,} to {high:,} of {n_train:,} examples "
            f"({low / n_train:.3g} to {high / n_train:.3g}): not all were drawn with a "
            f"fraction of {fraction:g}",
            hint="import each fraction into a store of its own: pooled, they give every pair an influence",
        )


def drawn_fraction(sizes: NDArray[np.int64], n_train: int) -> float:
    """Return the fraction that subsets were drawn with: a round one where that explains their sizes."""
    mean = float(sizes.mean()) / n_train
    exact = int(sizes.min()) == int(sizes.max())
    tolerance = 4 * math.sqrt(mean * (1 - mean) / (n_train * len(sizes)))
    for digits in (1, 2, 3):
        rounded = round(mean, digits)
        if not 0 < rounded < 1:
            continue
        if exact and math.floor(rounded * n_train + 0.5) != sizes[0]:
            continue
        if exact or abs(rounded - mean) <= tolerance:
            return rounded
    return mean
