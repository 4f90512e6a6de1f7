"""Runs of the likelihood-ratio attack (LiRA): masks, and scores or logits of all examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.format.manifest import CORRECT, LOGIT_CONFIDENCE, Outcome
from memdb.interop.arrays import ArrayFile, in_order, listed, open_array
from memdb.interop.described import Names, labels_in, names_in
from memdb.interop.gaps import missing_note
from memdb.interop.run_formats import Outcomes, Runs, logits_of, numbers, of_sets
from memdb.interop.views import flags
from memdb.wording import count

RIGHT_BY_SCORE = replace(
    CORRECT,
    definition="1 where the imported score log(p / (1 - p)) is above 0: p of the label above one half",
)


def keep_and_scores(path: Path, arrays: Mapping[str, ArrayFile]) -> Runs | None:
    """Read ``keep`` and ``scores`` or ``logits`` of all models: the likelihood-ratio attack's own arrays."""
    if "keep" not in arrays:
        return None
    keep = flags(arrays["keep"])
    keep.require((None, None), "b")
    names = names_in(arrays, {layout.TRAIN: keep.shape[1]})
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
        values = numbers(source.rows(start, stop), source.place, start)
        return keep.rows(start, stop), convert(values)

    model_bytes = 4 * source.n_bytes // max(1, n_models)
    sizes = {layout.TRAIN: n_examples}
    return Runs(str(path), "lira", n_models, sizes, outcomes, read, names, model_bytes)


def lira_folders(path: Path, arrays: Mapping[str, ArrayFile]) -> Runs | None:
    """Read one folder a model, each with ``keep.npy`` and the last epoch of ``scores`` or ``logits``."""
    folders = [file.parent for file in listed(path, "*/keep.npy")] if path.is_dir() else []
    if not folders:
        return None
    keeps = [flags(open_array(folder / "keep.npy")) for folder in folders]
    kind, saved = _last_epochs(folders)
    files = [open_array(path) for path in saved]
    n_examples = files[0].shape[0]
    for keep, file in zip(keeps, files, strict=True):
        keep.require((None,), "b")
        file.require((n_examples, *files[0].shape[1:]), "f")
        _require_numbers(file)
        if keep.shape[0] < n_examples:
            keep.require((n_examples,), "b")
    given, classes, in_words = labels_in(arrays, {layout.TRAIN: None})
    labels = {
        name: values if "train_labels" in arrays else values[:n_examples] for name, values in given.items()
    }
    outcomes, convert = _attacked(files[0].place, kind, labels.get(layout.TRAIN), n_examples)

    def read(start: int, stop: int) -> tuple[NDArray[np.bool_], Outcomes]:
        masks = [keep.rows(0, n_examples) for keep in keeps[start:stop]]
        values = [numbers(file.rows(0, n_examples), file.place) for file in files[start:stop]]
        return np.stack(masks), convert(np.stack(values))

    names = Names(labels, {}, classes, in_words)
    sizes = {layout.TRAIN: n_examples}
    notes = (*_epochs_differ(saved), *missing_note([folder.name for folder in folders], with_total=True))
    model_bytes = 4 * files[0].n_bytes
    return Runs(str(path), "lira", len(folders), sizes, outcomes, read, names, model_bytes, notes)


def _last_epochs(folders: Sequence[Path]) -> tuple[str, list[Path]]:
    """Return ``logits`` or ``scores``, and the file of them that each model's folder has of its last epoch.

    Raises:
        InvalidInputError: a folder has neither, or not what others have.
    """
    found: list[dict[str, Path]] = []
    for folder in folders:
        saved = {kind: _numbered_last(folder, kind) for kind in ("logits", "scores")}
        found.append({kind: path for kind, path in saved.items() if path is not None})
        if not found[-1]:
            raise InvalidInputError(
                f"{folder} has keep.npy but neither scores nor logits", hint="compute one of them first"
            )
    kind = next(iter(found[0]))
    odd = next((folder for folder, saved in zip(folders, found, strict=True) if kind not in saved), None)
    if odd is not None:
        raise InvalidInputError(f"{odd} has no {kind}, and others do", hint="compute them for all")
    return kind, [saved[kind] for saved in found]


def _numbered_last(folder: Path, kind: str) -> Path | None:
    """Return the file of the last epoch: that of the highest number, if any has one (``best`` has none)."""
    saved = listed(folder / kind, "*.npy") or listed(folder, f"{kind}*.npy")
    return max(saved, default=None, key=lambda path: (bool(re.search(r"\d", path.stem)), in_order(path.stem)))


def _epochs_differ(saved: Sequence[Path]) -> tuple[str, ...]:
    """Return a note if the last epoch of some models is not that of most."""
    names = Counter(path.name for path in saved)
    (usual, n), *others = names.most_common()
    if not others:
        return ()
    odd = next(path for path in saved if path.name != usual)
    n_others = len(saved) - n
    return (
        f"The last epoch is {usual} for {count(n, 'model')} and another for {n_others:,}, such as {odd}.",
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
            return {right: first > 0, soft: first}

        return of_sets(outcomes, [layout.TRAIN]), from_scores
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
        if np.isnan(confidence).any() or logits.shape[2] < 2:
            raise InvalidInputError(
                f"{place} has logits whose softmax is not a number: a single class, or no finite one",
                hint="omit, or mend, what did not finish",
            )
        return {right: logits.argmax(axis=2) == labels, soft: confidence}

    return of_sets(outcomes, [layout.TRAIN]), from_logits


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
    """Return the label's logit less the log-sum-exp of the others, [models, examples]; infinite at p = 1."""
    index = labels[None, :, None]
    own = np.take_along_axis(logits, index, axis=2)[:, :, 0]
    others = logits.copy()
    np.put_along_axis(others, index, -np.inf, axis=2)
    top = others.max(axis=2)
    shift = np.where(np.isfinite(top), top, 0)[:, :, None]
    with np.errstate(divide="ignore", over="ignore"):
        rest = shift[:, :, 0] + np.log(np.exp(others - shift).sum(axis=2))
    result: NDArray[np.float64] = own - rest
    return result


def privacy_meter(path: Path, arrays: Mapping[str, ArrayFile]) -> Runs | None:
    """Read ``memberships`` and ``signals`` of privacy_meter: signals are [examples, models], p of the label.

    In its log folder they are ``models/memberships.npy`` [models, examples] and
    ``signals/rmia_signals.npy``; memberships may also have the axes of signals. Right is p above one half.
    """
    below = {**_below(path, "memberships.npy"), **_below(path, "*signals.npy")}
    members = [name for name in ("memberships", "all_memberships") if name in arrays or name in below]
    named = sorted({name for name in (*arrays, *below) if name.endswith("signals")})
    if not members or not named:
        return None
    if len(named) > 1:
        raise InvalidInputError(
            f"{path} has several signals: {', '.join(named)}", hint="leave those of one attack"
        )
    member, signals = (arrays[name] if name in arrays else below[name] for name in (members[0], named[0]))
    signals.require((None, None), "f")
    member = flags(member)
    member.require((None, None), "b")
    n_examples, n_models = signals.shape
    if sorted(member.shape) != sorted(signals.shape):
        member.require((n_models, n_examples), "b")
    turned = member.shape != (n_models, n_examples)
    notes = [f"Axis 1 of {named[0]} is models: {count(n_models, 'model')} of {count(n_examples, 'example')}."]
    if n_models == n_examples:
        notes.append("memberships are as square: axis 0 is taken for models, as privacy_meter saves them.")

    def read(start: int, stop: int) -> tuple[NDArray[np.bool_], Outcomes]:
        p = signals.rows(0, n_examples)[:, start:stop].T
        mask = member.rows(0, n_examples)[:, start:stop].T if turned else member.rows(start, stop)
        logits = logits_of(numbers(p, signals.place), signals.place, "compute signals as p of the label")
        outcomes = {f"{layout.TRAIN}/{CORRECT.name}": logits > 0}
        return mask, {**outcomes, f"{layout.TRAIN}/{LOGIT_CONFIDENCE.name}": logits}

    sizes = {layout.TRAIN: n_examples}
    names = names_in(arrays, sizes)
    kept = of_sets((RIGHT_BY_SCORE, LOGIT_CONFIDENCE), sizes)
    return Runs(str(path), "privacy_meter", n_models, sizes, kept, read, names, 24 * n_examples, tuple(notes))


def _below(path: Path, pattern: str) -> dict[str, ArrayFile]:
    """Return arrays in the folders of a folder, by their names."""
    if not path.is_dir():
        return {}
    return {file.stem: open_array(file) for file in listed(path, f"*/{pattern}")}
