"""Runs of models in other people's formats: subset masks and outcomes, whatever they are called there.

Every format becomes `Runs`; the import knows nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.format.manifest import CORRECT, LOGIT_CONFIDENCE, Outcome
from memdb.interop.arrays import ArrayFile, bools, names_of

LIMIT = 30.0  # of a logit confidence
SETS = (layout.TRAIN, layout.TEST)
FLAGS = "biu"
Outcomes: TypeAlias = Mapping[str, NDArray[Any]]
MARGIN = Outcome(
    "margin",
    "real",
    "float16",
    SETS,
    "logit of the label less the largest of the others, or whatever the imported file calls its margin",
)
RIGHT_BY_MARGIN = replace(CORRECT, definition="1 where the imported margin is above 0")
PLAIN_KEYS = (
    "mask, train_correct and, where there are test examples, test_correct; optionally train_ and test_ "
    "logit_confidence or confidence, labels and keys, and class_names"
)


@dataclass(frozen=True)
class Names:
    """What a file says about the examples themselves, by set; a set that it does not describe is absent."""

    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runs:
    """Models of one file or folder, [models, examples]; ``read`` gives some of them, unchecked but typed."""

    place: str
    kind: str
    n_models: int
    sizes: Mapping[str, int]  # of each set of examples
    outcomes: tuple[Outcome, ...]
    read: Callable[[int, int], tuple[NDArray[np.bool_], Outcomes]]
    names: Names = field(default_factory=Names)
    model_bytes: int = 0  # of what is in memory for each model while it is read


RunFormat: TypeAlias = Callable[[Path, Mapping[str, ArrayFile]], Runs | None]
"""A format of runs: from a path and its arrays by name to `Runs`, or None for a file in another format."""


def plain(path: Path, arrays: Mapping[str, ArrayFile]) -> Runs | None:
    """Read ``mask``, ``train_correct`` and ``test_correct``, the plain format for one's own runs."""
    if "mask" not in arrays:
        return None
    if "train_correct" not in arrays:
        raise InvalidInputError(
            f"{path} has {names_of(arrays)}; train_correct is missing", hint=f"a plain file has {PLAIN_KEYS}"
        )
    mask = arrays["mask"]
    mask.require((None, None), FLAGS)
    n_models, n_train = mask.shape
    sizes = {layout.TRAIN: n_train}
    if "test_correct" in arrays:
        arrays["test_correct"].require((n_models, None), FLAGS)
        sizes[layout.TEST] = arrays["test_correct"].shape[1]
    bits = {f"{name}/{CORRECT.name}": arrays[f"{name}_correct"] for name in sizes}
    soft, probable = _confidences(path, arrays, sizes)
    for files, kinds in ((bits, FLAGS), (soft, "f")):
        for target, file in files.items():
            file.require((n_models, sizes[target.split("/")[0]]), kinds)
    outcomes = of_sets((CORRECT, LOGIT_CONFIDENCE) if soft else (CORRECT,), sizes)

    def read(start: int, stop: int) -> tuple[NDArray[np.bool_], Outcomes]:
        found: dict[str, NDArray[Any]] = {
            target: bools(file.rows(start, stop), file.place) for target, file in bits.items()
        }
        for target, file in soft.items():
            values = finite(file.rows(start, stop), file.place, start)
            found[target] = _logits(values, file.place) if probable else clipped(values)
        return bools(mask.rows(start, stop), mask.place), found

    return Runs(
        str(path), "plain", n_models, sizes, outcomes, read, names_in(arrays, sizes), 16 * sum(sizes.values())
    )


def _confidences(
    path: Path, arrays: Mapping[str, ArrayFile], sizes: Mapping[str, int]
) -> tuple[dict[str, ArrayFile], bool]:
    """Return the files of confidences by outcome, of all sets or none, and whether they are probabilities."""
    for name in (LOGIT_CONFIDENCE.name, "confidence"):
        held = [part for part in sizes if f"{part}_{name}" in arrays]
        if held and len(held) != len(sizes):
            raise InvalidInputError(
                f"{path} has {name} of the {held[0]} set alone", hint="give it for both sets, or for neither"
            )
        if held:
            files = {f"{part}/{LOGIT_CONFIDENCE.name}": arrays[f"{part}_{name}"] for part in sizes}
            return files, name == "confidence"
    return {}, False


def names_in(arrays: Mapping[str, ArrayFile], sizes: Mapping[str, int]) -> Names:
    """Return the labels, keys and class names among the arrays."""

    def held(what: str, kinds: str) -> dict[str, NDArray[Any]]:
        files = {part: arrays[f"{part}_{what}"] for part in sizes if f"{part}_{what}" in arrays}
        return {part: file.whole((sizes[part],), kinds) for part, file in files.items()}

    classes = arrays["class_names"].whole((None,), "U").tolist() if "class_names" in arrays else []
    keys = {part: values.tolist() for part, values in held("keys", "U").items()}
    return Names(held("labels", "iu"), keys, tuple(classes))


def datamodels(path: Path, arrays: Mapping[str, ArrayFile]) -> Runs | None:
    """Read ``train_masks``, ``train_margins`` and ``test_margins``: right is a margin above 0.

    Released files carry the subset fraction in their names: ``train_masks_50pct.npy``.
    """
    endings = sorted(name.removeprefix("train_masks") for name in arrays if name.startswith("train_masks"))
    if not endings:
        return None
    if len(endings) > 1:
        raise InvalidInputError(
            f"{path} holds masks of several subset fractions: train_masks{', train_masks'.join(endings)}",
            hint="put those of one fraction into a folder of their own: different fractions are never pooled",
        )
    named = {part: f"{part}_margins{endings[0]}" for part in SETS}
    missing = [name for name in named.values() if name not in arrays]
    if missing:
        raise InvalidInputError(
            f"{path} has {names_of(arrays)}; {' and '.join(missing)} missing",
            hint="a folder of datamodels has train_masks, train_margins and test_margins",
        )
    mask = arrays[f"train_masks{endings[0]}"]
    mask.require((None, None), FLAGS)
    margins = {part: arrays[name] for part, name in named.items()}
    margins[layout.TRAIN].require(mask.shape, "f")
    margins[layout.TEST].require((mask.shape[0], None), "f")
    sizes = {part: file.shape[1] for part, file in margins.items()}

    def read(start: int, stop: int) -> tuple[NDArray[np.bool_], Outcomes]:
        found: dict[str, NDArray[Any]] = {}
        for part, file in margins.items():
            values = finite(file.rows(start, stop), file.place, start)
            found[f"{part}/{CORRECT.name}"] = values > 0
            found[f"{part}/{MARGIN.name}"] = np.clip(values, -65504, 65504).astype(np.float16)
        return bools(mask.rows(start, stop), mask.place), found

    outcomes = of_sets((RIGHT_BY_MARGIN, MARGIN), sizes)
    names = names_in(arrays, sizes)
    return Runs(
        str(path), "datamodels", mask.shape[0], sizes, outcomes, read, names, 16 * sum(sizes.values())
    )


def of_sets(outcomes: Sequence[Outcome], sets: Sequence[str] | Mapping[str, int]) -> tuple[Outcome, ...]:
    """Return outcomes as kept of these sets alone."""
    return tuple(replace(outcome, sets=tuple(sets)) for outcome in outcomes)


def finite(values: NDArray[Any], place: str, first_row: int = 0, *, infinite: bool = False) -> NDArray[Any]:
    """Refuse NaN, and infinite numbers unless ``infinite``.

    Raises:
        InvalidInputError: names the row of the first.
    """
    wrong = np.isnan(values) if infinite else ~np.isfinite(values)
    if wrong.any():
        at = np.argwhere(wrong)[0]
        row = [first_row + int(at[0]), *at[1:].tolist()]
        raise InvalidInputError(
            f"{place} holds {values[tuple(at)]} at {row}", hint="leave out, or mend, what did not finish"
        )
    return values


def clipped(values: NDArray[Any]) -> NDArray[np.float16]:
    """Return logit confidences as they are stored."""
    limited: NDArray[np.float16] = np.clip(values, -LIMIT, LIMIT).astype(np.float16)
    return limited


def _logits(p: NDArray[Any], place: str) -> NDArray[np.float16]:
    """Return the logit confidences of probabilities."""
    wrong = (p < 0) | (p > 1)
    if wrong.any():
        raise InvalidInputError(
            f"{place} holds {p[wrong][0]:g}, which is no probability", hint="call logits ..._logit_confidence"
        )
    exact = p.astype(np.float64)
    with np.errstate(divide="ignore"):
        return clipped(np.log(exact) - np.log1p(-exact))
