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
from memdb.interop.arrays import ArrayFile, bools, names_of, open_array

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
RIGHT_BY_SCORE = replace(
    CORRECT,
    definition="1 where the imported score log(p / (1 - p)) is above 0: p of the label above one half",
)
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
    outcomes = _of_sets((CORRECT, LOGIT_CONFIDENCE) if soft else (CORRECT,), sizes)

    def read(start: int, stop: int) -> tuple[NDArray[np.bool_], Outcomes]:
        found: dict[str, NDArray[Any]] = {
            target: bools(file.rows(start, stop), file.place) for target, file in bits.items()
        }
        for target, file in soft.items():
            values = finite(file.rows(start, stop), file.place, start)
            found[target] = _logits(values, file.place) if probable else clipped(values)
        return bools(mask.rows(start, stop), mask.place), found

    return Runs(
        str(path), "plain", n_models, sizes, outcomes, read, _names(arrays, sizes), 16 * sum(sizes.values())
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


def _names(arrays: Mapping[str, ArrayFile], sizes: Mapping[str, int]) -> Names:
    def of_sets(what: str, kinds: str) -> dict[str, NDArray[Any]]:
        held = {part: arrays[f"{part}_{what}"] for part in sizes if f"{part}_{what}" in arrays}
        return {part: file.whole((sizes[part],), kinds) for part, file in held.items()}

    classes = arrays["class_names"].whole((None,), "U").tolist() if "class_names" in arrays else []
    keys = {part: values.tolist() for part, values in of_sets("keys", "U").items()}
    return Names(of_sets("labels", "iu"), keys, tuple(classes))


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

    outcomes = _of_sets((RIGHT_BY_MARGIN, MARGIN), sizes)
    names = _names(arrays, sizes)
    return Runs(
        str(path), "datamodels", mask.shape[0], sizes, outcomes, read, names, 16 * sum(sizes.values())
    )


def keep_and_scores(path: Path, arrays: Mapping[str, ArrayFile]) -> Runs | None:
    """Read ``keep`` and ``scores`` or ``logits`` of all models: the likelihood-ratio attack's own arrays."""
    if "keep" not in arrays:
        return None
    keep = arrays["keep"]
    keep.require((None, None), FLAGS)
    names = _names(arrays, {layout.TRAIN: keep.shape[1]})
    kind = next((name for name in ("logits", "scores") if name in arrays), None)
    if kind is None:
        raise InvalidInputError(
            f"{path} has keep but neither scores nor logits", hint="put one of them beside it"
        )
    n_models, n_examples = keep.shape
    source = arrays[kind]
    outcomes, convert = _attacked(source.place, kind, names.labels.get(layout.TRAIN), n_examples)
    source.require((n_models, n_examples, *(None for _ in source.shape[2:])), "f")
    _require_numbers(source)

    def read(start: int, stop: int) -> tuple[NDArray[np.bool_], Outcomes]:
        values = finite(source.rows(start, stop), source.place, start, infinite=True)
        return bools(keep.rows(start, stop), keep.place), convert(values)

    model_bytes = 4 * source.n_bytes // max(1, n_models)
    sizes = {layout.TRAIN: n_examples}
    return Runs(str(path), "lira", n_models, sizes, outcomes, read, names, model_bytes)


def lira_folders(path: Path, arrays: Mapping[str, ArrayFile]) -> Runs | None:
    """Read one folder a model, each with ``keep.npy`` and the last epoch of ``scores`` or ``logits``."""
    folders = sorted(file.parent for file in path.glob("*/keep.npy")) if path.is_dir() else []
    if not folders:
        return None
    keeps = [open_array(folder / "keep.npy") for folder in folders]
    sources = [_last_epoch(folder) for folder in folders]
    kind = sources[0][0]
    odd = next((f for f, (other, _) in zip(folders, sources, strict=True) if other != kind), None)
    if odd is not None:
        raise InvalidInputError(f"{odd} has no {kind}, and others do", hint="compute them for all")
    files = [file for _, file in sources]
    n_examples = files[0].shape[0]
    for keep, file in zip(keeps, files, strict=True):
        keep.require((None,), FLAGS)
        file.require((n_examples, *files[0].shape[1:]), "f")
        _require_numbers(file)
        if keep.shape[0] < n_examples:
            keep.require((n_examples,), FLAGS)
    given = arrays.get(f"{layout.TRAIN}_labels")
    labels = None if given is None else given.whole((None,), "iu")
    if labels is None and "y_train" in arrays:
        labels = arrays["y_train"].whole((None,), "iu")[:n_examples]
    outcomes, convert = _attacked(files[0].place, kind, labels, n_examples)

    def read(start: int, stop: int) -> tuple[NDArray[np.bool_], Outcomes]:
        masks = [bools(keep.rows(0, n_examples), keep.place) for keep in keeps[start:stop]]
        values = [finite(file.rows(0, n_examples), file.place, infinite=True) for file in files[start:stop]]
        return np.stack(masks), convert(np.stack(values))

    names = Names({} if labels is None else {layout.TRAIN: labels})
    sizes = {layout.TRAIN: n_examples}
    return Runs(str(path), "lira", len(folders), sizes, outcomes, read, names, 4 * files[0].n_bytes)


def _last_epoch(folder: Path) -> tuple[str, ArrayFile]:
    """Return ``logits`` or ``scores``, and which a model's folder has of them of the last epoch saved."""
    for kind in ("logits", "scores"):
        saved = sorted((folder / kind).glob("*.npy")) or sorted(folder.glob(f"{kind}.npy"))
        if saved:
            return kind, open_array(saved[-1])
    raise InvalidInputError(
        f"{folder} has keep.npy but neither scores nor logits", hint="compute one of them first"
    )


def _attacked(
    place: str,
    kind: str,
    labels: NDArray[Any] | None,
    n_examples: int,
) -> tuple[tuple[Outcome, ...], Callable[[NDArray[Any]], Outcomes]]:
    """Return the outcomes of the attack's numbers, and what makes them of [models, examples, ...].

    Of several queries of an example, augmented ones among them, the first counts: a prediction is one
    without augmentation.
    """
    outcomes = (CORRECT if kind == "logits" else RIGHT_BY_SCORE, LOGIT_CONFIDENCE)
    right, soft = (f"{layout.TRAIN}/{item.name}" for item in outcomes)
    if kind == "scores":

        def from_scores(values: NDArray[Any]) -> Outcomes:
            first = _first_query(values, 2)
            return {right: first > 0, soft: clipped(first)}

        return _of_sets(outcomes, [layout.TRAIN]), from_scores
    if labels is None:
        raise InvalidInputError(
            f"{place} are logits, and the labels are not known",
            hint="put y_train.npy beside the folders, train_labels into the file, or say labels=FILE",
            parameter="labels",
        )
    if len(labels) != n_examples:
        raise InvalidInputError(
            f"{place} is of {n_examples:,} examples, and there are {len(labels):,} labels"
        )

    def from_logits(values: NDArray[Any]) -> Outcomes:
        logits = _first_query(values, 3).astype(np.float64)  # [models, examples, classes]
        if labels.min() < 0 or labels.max() >= logits.shape[2]:
            raise InvalidInputError(
                f"{place} has {logits.shape[2]} classes, and the labels go to {labels.max()}"
            )
        with np.errstate(invalid="ignore"):
            confidence = _confidence(logits, labels)
        if np.isnan(confidence).any():
            raise InvalidInputError(
                f"{place} has logits whose softmax is not a number: a single class, or no finite one",
                hint="leave out, or mend, what did not finish",
            )
        return {right: logits.argmax(axis=2) == labels, soft: clipped(confidence)}

    return _of_sets(outcomes, [layout.TRAIN]), from_logits


def _require_numbers(file: ArrayFile) -> None:
    """Refuse examples without any number: an axis of queries or classes that has no length."""
    if 0 in file.shape[1:]:
        raise InvalidInputError(
            f"{file.place} has shape {file.shape}, and so no numbers", hint="save it again"
        )


def _first_query(values: NDArray[Any], n_axes: int) -> NDArray[Any]:
    """Return the values of the first query of each example: the axes between examples and classes go."""
    while values.ndim > n_axes:
        values = values[:, :, 0]
    return values


def _confidence(logits: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the label's logit less the log-sum-exp of the others, [models, examples]."""
    index = labels[None, :, None]
    own = np.take_along_axis(logits, index, axis=2)[:, :, 0]
    others = logits.copy()
    np.put_along_axis(others, index, -np.inf, axis=2)
    top = others.max(axis=2, keepdims=True)
    result: NDArray[np.float64] = own - top[:, :, 0] - np.log(np.exp(others - top).sum(axis=2))
    return result


def _of_sets(outcomes: Sequence[Outcome], sets: Sequence[str] | Mapping[str, int]) -> tuple[Outcome, ...]:
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
            f"{place} holds {p[wrong][0]:g}, which is not a probability",
            hint="call logits ..._logit_confidence",
        )
    exact = p.astype(np.float64)
    with np.errstate(divide="ignore"):
        return clipped(np.log(exact) - np.log1p(-exact))


FORMATS: tuple[RunFormat, ...] = (datamodels, plain, keep_and_scores, lira_folders)
