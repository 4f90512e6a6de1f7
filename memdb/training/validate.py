"""What a recipe returned, checked and made ready to be stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import TrainingError
from memdb.format import layout
from memdb.format.manifest import CORRECT, CUMULATIVE_LOSS, LOGIT_CONFIDENCE, Outcome

CONFIDENCE_LIMIT = 30.0
LOSS_LIMIT = 65504.0  # the largest float16
PROTOCOL = "see the Protocol: `python -c 'import memdb; help(memdb.Recipe)'`"
KINDS = {"bit": "b", "unit": "f", "real": "f", "category": "u"}
TYPES = {"b": "bool", "f": "float", "u": "unsigned integers"}


def checked(
    returned: Any, arrays: Mapping[str, tuple[Outcome, int]], recipe: str, masks: NDArray[np.bool_]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """Return the outcomes to store, and which models [models] gave finite numbers only.

    Raises:
        TrainingError: something is missing, or of another shape or type.
    """
    if not isinstance(returned, Mapping):
        raise TrainingError(
            f"recipe {recipe} returned a {type(returned).__name__}, not a mapping", hint=PROTOCOL
        )
    kept: dict[str, NDArray[Any]] = {}
    finite = np.ones(len(masks), dtype=np.bool_)
    sizes = {path.split("/")[0]: n_examples for path, (_, n_examples) in arrays.items()}
    for name, n_examples in sizes.items():
        shape = len(masks), n_examples
        kept[f"{name}/{CORRECT.name}"] = _array(returned, f"{name}/{CORRECT.name}", "b", shape, recipe)
        path = f"{name}/{LOGIT_CONFIDENCE.name}"
        if path in returned:
            values = _array(returned, path, "f", shape, recipe)
            missing = np.isnan(values)
            finite &= ~missing.any(axis=1)
            kept[f"{name}/{CORRECT.name}"] = kept[f"{name}/{CORRECT.name}"] & ~missing
            limited = np.clip(values, -CONFIDENCE_LIMIT, CONFIDENCE_LIMIT)
            kept[path] = np.where(missing, -CONFIDENCE_LIMIT, limited)
    for path, (outcome, n_examples) in arrays.items():
        if outcome.name not in {CORRECT.name, LOGIT_CONFIDENCE.name}:
            shape = len(masks), n_examples
            kept[path] = _array(returned, path, KINDS[outcome.kind], shape, recipe)
    losses = f"{layout.TRAIN}/{CUMULATIVE_LOSS.name}"
    if losses in kept:
        lost = np.isnan(kept[losses]) & masks  # the model diverged
        kept[losses] = np.where(lost, LOSS_LIMIT, np.clip(kept[losses], 0, LOSS_LIMIT))
    return {path: values for path, values in kept.items() if path in arrays}, finite


def _array(
    returned: Mapping[str, Any], path: str, kind: str, shape: tuple[int, int], recipe: str
) -> NDArray[Any]:
    """Return one outcome as an array of this kind and shape, which the recipe must have given."""
    if path not in returned:
        raise TrainingError(
            f"recipe {recipe} returned no {path!r} but {sorted(map(str, returned))}", hint=PROTOCOL
        )
    try:
        values = np.asarray(returned[path])
    except (TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(f"recipe {recipe}: {path!r} is no array: {error}", hint=PROTOCOL) from error
    if values.shape != shape or values.dtype.kind != kind:
        raise TrainingError(
            f"recipe {recipe} returned {path!r} as {values.dtype} {values.shape}; expected "
            f"{TYPES[kind]} {shape}",
            hint=PROTOCOL,
        )
    return values
