"""Validate what a recipe returned, and convert it for storage."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import TrainingError
from memdb.format import layout
from memdb.format.manifest import CORRECT, CUMULATIVE_LOSS, LOGIT_CONFIDENCE, Outcome
from memdb.wording import count

CONFIDENCE_LIMIT = 30.0
LOSS_LIMIT = 65504.0  # the largest float16
PROTOCOL = "`python -c 'import memdb; help(memdb.Recipe)'` shows what a recipe returns"
RETURN = (
    'return {"train/correct": ..., "test/correct": ...}, predictions == labels, as bool [models, examples]'
)
EXAMPLES_AT_ONCE = 512  # of all models: few enough for a cache, and for few calls of NumPy
MOST, ENOUGH = 0.75, 8  # of the wrong predictions
KINDS = {"bit": "b", "unit": "f", "real": "f", "category": "u"}
TYPES = {"b": "bool", "f": "float", "u": "unsigned integers"}


def checked(
    returned: Any, arrays: Mapping[str, tuple[Outcome, int]], recipe: str, masks: NDArray[np.bool_]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """Return the outcomes to store by path, and which models gave only finite numbers, bool [models].

    Raises:
        TrainingError: an outcome is missing, or has the wrong shape or type.
    """
    if not isinstance(returned, Mapping):
        raise TrainingError(
            f"recipe {recipe} returned a {type(returned).__name__}, not a mapping", hint=RETURN
        )
    kept: dict[str, NDArray[Any]] = {}
    finite = np.ones(len(masks), dtype=np.bool_)
    sizes = {path.split("/")[0]: n_examples for path, (_, n_examples) in arrays.items()}
    for name, n_examples in sizes.items():
        shape = len(masks), n_examples
        kept[f"{name}/{CORRECT.name}"] = _array(returned, f"{name}/{CORRECT.name}", "b", shape, recipe)
        path = f"{name}/{LOGIT_CONFIDENCE.name}"
        if path in returned:
            outcome = arrays[path][0] if path in arrays else LOGIT_CONFIDENCE
            kept[path], lacks_some = _limited(_array(returned, path, "f", shape, recipe), outcome.dtype)
            if lacks_some:
                missing = np.isnan(kept[path])
                finite &= ~missing.any(axis=1)
                kept[f"{name}/{CORRECT.name}"] = kept[f"{name}/{CORRECT.name}"] & ~missing
                kept[path][missing] = -CONFIDENCE_LIMIT
    for path, (outcome, n_examples) in arrays.items():
        if outcome.name not in {CORRECT.name, LOGIT_CONFIDENCE.name}:
            shape = len(masks), n_examples
            kept[path] = _array(returned, path, KINDS[outcome.kind], shape, recipe)
            if outcome.kind == "category":
                _require_fitting(kept[path], np.iinfo(outcome.dtype).max, path, recipe)
    losses = f"{layout.TRAIN}/{CUMULATIVE_LOSS.name}"
    if losses in kept:
        lost = np.isnan(kept[losses]) & masks  # the model diverged
        kept[losses] = np.where(lost, LOSS_LIMIT, np.clip(kept[losses], 0, LOSS_LIMIT))
    return {path: values for path, values in kept.items() if path in arrays}, finite


def doubts(outcomes: Mapping[str, NDArray[Any]], finite: NDArray[np.bool_], recipe: str) -> str:
    """Return a warning if logit confidences look like something else, or an empty string.

    A wrong model gives the label a probability below one half, and so a negative logit confidence. A few
    exceptions may come from rounding, or from probabilities that were calibrated afterwards.
    """
    kept = [path for path in outcomes if path.endswith(f"/{LOGIT_CONFIDENCE.name}")]
    n_wrong = n_positive = 0
    for path in kept:
        correct = outcomes[path.replace(LOGIT_CONFIDENCE.name, CORRECT.name)]
        n_wrong += correct.size - int(np.count_nonzero(correct))
        values = outcomes[path]
        if values.dtype == np.float16:
            values = values.view(np.int16)  # of like sign, and compared six times as fast
        n_positive += sum(
            int(np.count_nonzero((values[:, some] > 0) > correct[:, some]))
            for some in _parts(correct.shape[1])
        )
    if n_positive == 0:
        return ""
    meaning = "return log(p / (1 - p)), which memdb.log_odds(logits, labels) computes"
    if all(values.min() >= 0 and values.max() <= 1 for values in map(outcomes.__getitem__, kept)):
        return (
            f"recipe {recipe} gives logit confidences that all lie between 0 and 1, and above 0 for wrong "
            f"predictions: they look like probabilities, and every score of theirs will be off; {meaning}"
        )
    if finite.all() and n_wrong >= ENOUGH and n_positive > MOST * n_wrong:
        return (
            f"recipe {recipe} gives logit confidences above 0 for most wrong predictions, whose labels have "
            f"less than half of the probability: they look like losses or margins; {meaning}"
        )
    return ""


def _limited(values: NDArray[Any], dtype: str) -> tuple[NDArray[Any], bool]:
    """Return confidences as the store keeps them, and whether some are NaN.

    They lie in memory as segments have them, and are made in parts that fit into a cache.
    """
    kept = np.empty(values.shape[::-1], dtype)
    lacks_some = False
    for some in _parts(values.shape[1]):
        part = np.clip(values[:, some].T, -CONFIDENCE_LIMIT, CONFIDENCE_LIMIT)
        lacks_some |= bool(np.isnan(part.min(initial=0)))  # much faster than to look at each
        kept[some] = part
    return kept.T, lacks_some


def _parts(n_examples: int) -> Iterator[slice]:
    return (slice(start, start + EXAMPLES_AT_ONCE) for start in range(0, n_examples, EXAMPLES_AT_ONCE))


def _array(
    returned: Mapping[str, Any], path: str, kind: str, shape: tuple[int, int], recipe: str
) -> NDArray[Any]:
    """Return one outcome as an array, checking that it is there with this kind and shape."""
    if path not in returned:
        near = difflib.get_close_matches(path, map(str, returned), n=1, cutoff=0.9)
        raise TrainingError(
            f"recipe {recipe} returned no {path!r} but {sorted(map(str, returned))}",
            hint=f"rename {near[0]!r} to {path!r}" if near else _must_return(path),
            parameter="outcomes",
        )
    try:
        values = np.asarray(returned[path])
    except (TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(f"recipe {recipe}: {path!r} is not an array: {error}", hint=PROTOCOL) from error
    if values.shape != shape or values.dtype.kind != kind:
        part = path.split("/", maxsplit=1)[0]
        raise TrainingError(
            f"recipe {recipe} returned {path!r} as {values.dtype} {values.shape}; expected "
            f"{TYPES[kind]} {shape}",
            hint=_way_of_shape(part, values.shape, shape)
            if values.shape != shape
            else _way_of_type(part, values, kind),
        )
    return values


def _require_fitting(values: NDArray[Any], most: int, path: str, recipe: str) -> None:
    """Refuse numbers that the store would keep as others."""
    if values.size and int(values.max()) > most:
        raise TrainingError(
            f"recipe {recipe} returned {path!r} up to {int(values.max()):,}; the store keeps up to {most:,}",
            hint=f"omit {path.split('/')[1]} from outcomes",
            parameter="outcomes",
        )


def _must_return(path: str) -> str:
    outcome = path.split("/")[1]
    return RETURN if outcome == CORRECT.name else f"return {path!r} too, or omit {outcome} from outcomes"


def _way_of_shape(part: str, shape: tuple[int, ...], wanted: tuple[int, int]) -> str:
    """Return a hint on how to fix an array of this shape."""
    if shape == wanted[::-1]:
        return "its axes are [models, examples]: write values.T"
    if shape == wanted[1:]:
        return "its axes are [models, examples]: write values[None] for one model, or numpy.stack for several"
    if shape[:1] == wanted[:1] and len(shape) == 2:
        return f"the {part} set has {count(wanted[1], 'example')}: are the sets swapped, or examples missing?"
    return "its axes are [models, examples], in the order of the masks and of the data set"


def _way_of_type(part: str, values: NDArray[Any], kind: str) -> str:
    """Return a hint on how to fix an array of this type."""
    if kind != "b" or values.dtype.kind not in "iuf":
        return PROTOCOL
    if np.isin(values, (0, 1)).all():
        return "write values.astype(bool)"
    if values.dtype.kind == "f":
        return f"it is whether predictions are right: write probabilities.argmax(-1) == data.{part}.labels"
    return f"these look like predictions: write predictions == data.{part}.labels"
