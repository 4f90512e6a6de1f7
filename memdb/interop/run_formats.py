"""Runs of models in other people's formats: subset masks and outcomes, whatever they are called there.

Every format becomes `Runs`; the import knows nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.format.manifest import CORRECT, DTYPES, KINDS, LOGIT_CONFIDENCE, Outcome
from memdb.interop.arrays import ArrayFile
from memdb.interop.by_name import names_of
from memdb.interop.described import Names, named, names_in
from memdb.interop.views import as_list, as_rows, bools, flags
from memdb.wording import count, verb

SETS = (layout.TRAIN, layout.TEST)
NUMBERS = {
    "bit": "biuf",
    "unit": "fiu",
    "real": "fiu",
    "category": "iu",
}  # kinds of NumPy by those of outcomes
Outcomes: TypeAlias = Mapping[str, NDArray[Any]]
MARGIN = Outcome(
    "margin",
    "real",
    "float16",
    SETS,
    "logit of the label less the largest of the others, or whatever the imported file calls its margin",
)
RIGHT_BY_MARGIN = replace(CORRECT, definition="1 where the imported margin is above 0")
DEFINED = "outcomes"  # text [outcomes, 4] in what memdb exports: name, kind, dtype and definition of each
MASKS = ("train_masks", "masks", "mask")  # of the datamodels tool
MARGINS = {layout.TRAIN: ("train_margins",), layout.TEST: ("test_margins", "val_margins", "margins")}
SCANNED_BYTES = 64 << 20  # of margins at once
CALLED = {  # what others call the arrays of the plain format
    "mask": (
        "mask", "masks", "trainset_mask", "trainset_masks", "train_mask", "train_masks", "subset_mask",
        "subset_masks",
    ),
    "train_correct": (
        "train_correct", "trainset_correct", "trainset_correctness", "train_correctness", "correct_train",
        "correctness_train",
    ),
    "test_correct": (
        "test_correct", "testset_correct", "testset_correctness", "test_correctness", "correct_test",
        "correctness_test",
    ),
}  # fmt: skip
PLAIN_KEYS = (
    "mask, and train_correct, test_correct or both; optionally train_ and test_ logit_confidence or "
    "confidence, margin, labels and keys, and class_names"
)


@dataclass(frozen=True)
class Runs:
    """Models of one file or folder, [models, examples]; ``read`` gives some of them.

    Outcomes may be of any numbers that `as_stored` takes; ``notes`` are what the user should know.
    """

    place: str
    kind: str
    n_models: int
    sizes: Mapping[str, int]  # of each set of examples
    outcomes: tuple[Outcome, ...]
    read: Callable[[int, int], tuple[NDArray[np.bool_], Outcomes]]
    names: Names = field(default_factory=Names)
    model_bytes: int = 0  # of what is in memory for each model while it is read
    notes: tuple[str, ...] = ()


RunFormat: TypeAlias = Callable[[Path, Mapping[str, ArrayFile]], Runs | None]
"""A format of runs: from a path and its arrays by name to `Runs`, or None for a file in another format."""


def plain(path: Path, arrays: Mapping[str, ArrayFile]) -> Runs | None:
    """Read ``mask``, ``train_correct`` and ``test_correct``, the plain format for one's own runs."""
    if "mask" not in arrays:
        return None
    return by_name(path, arrays, "plain")


def by_name(path: Path, arrays: Mapping[str, ArrayFile], kind: str, notes: tuple[str, ...] = ()) -> Runs:
    """Read arrays that have the names of the plain format, or others for the same.

    Arrays of one axis are of one model.
    """
    given = as_rows(_called(arrays, "mask") or arrays["mask"])
    _refuse_indices(given)
    mask = flags(given)
    mask.require((None, None), "b")
    n_models, n_train = mask.shape
    defined = _defined(arrays)
    files: dict[str, ArrayFile] = {}
    for name, part in ((n, p) for n in defined for p in SETS):
        found = _called(arrays, f"{part}_{name}")
        if found is not None:
            files[f"{part}/{name}"] = as_rows(found)
    correct = [part for part in SETS if f"{part}/{CORRECT.name}" in files]
    if not correct:
        raise InvalidInputError(
            f"{path} has {names_of(arrays)}; train_correct and test_correct are missing",
            hint=f"a plain file has {PLAIN_KEYS}",
        )
    sizes = {layout.TRAIN: n_train}
    if any(target.startswith(f"{layout.TEST}/") for target in files):
        first = next(file for target, file in files.items() if target.startswith(f"{layout.TEST}/"))
        first.require((n_models, None), "biuf")
        sizes[layout.TEST] = first.shape[1]
    probable = _confidences(path, arrays, sizes, files)
    for target, file in files.items():
        part, name = target.split("/")
        file.require((n_models, sizes[part]), NUMBERS[defined[name].kind])
    outcomes = tuple(
        replace(outcome, sets=tuple(part for part in sizes if f"{part}/{name}" in files))
        for name, outcome in defined.items()
        if any(f"{part}/{name}" in files for part in sizes)
    )

    def read(start: int, stop: int) -> tuple[NDArray[np.bool_], Outcomes]:
        found: dict[str, NDArray[Any]] = {}
        for target, file in files.items():
            values = file.rows(start, stop)
            if defined[target.split("/")[1]].kind == "bit":
                values = bools(values, file.place)
            elif target in probable:
                values = logits_of(numbers(values, file.place, start), file.place)
            else:
                numbers(values, file.place, start, missing=target.split("/")[1] not in WHOLE)
            found[target] = values
        return bools(mask.rows(start, stop), mask.place), found

    names = names_in(arrays, sizes)
    return Runs(str(path), kind, n_models, sizes, outcomes, read, names, 16 * sum(sizes.values()), notes)


def _refuse_indices(mask: ArrayFile) -> None:
    """Refuse what lists the examples of each subset, which otherwise fits no other array.

    Raises:
        InvalidInputError: the first row holds several numbers, and each once.
    """
    if mask.dtype.kind not in "iu" or len(mask.shape) != 2 or 0 in mask.shape:
        return
    row = mask.rows(0, 1)[0]
    if len(row) > 2 and len(np.unique(row)) == len(row):
        raise InvalidInputError(
            f"{mask.place} lists the examples of each subset: its first row holds {row.max()}",
            hint="make a mask of it: `mask = np.zeros((n_models, n_train), bool)`, and "
            "`np.put_along_axis(mask, indices, True, axis=1)`",
        )


def _called(arrays: Mapping[str, ArrayFile], name: str) -> ArrayFile | None:
    return named(arrays, CALLED.get(name, (name,)))


def _defined(arrays: Mapping[str, ArrayFile]) -> dict[str, Outcome]:
    """Return the outcomes that may be there by name, as the file defines them if it does.

    Raises:
        InvalidInputError: what should define outcomes does not.
    """
    known = {outcome.name: outcome for outcome in (CORRECT, LOGIT_CONFIDENCE, MARGIN)}
    if DEFINED not in arrays:
        return known
    rows = arrays[DEFINED].whole((None, 4), "U").tolist()
    for name, kind, dtype, definition in rows:
        if not (layout.is_set_name(name) and kind in KINDS and dtype in DTYPES and definition):
            raise InvalidInputError(
                f"{arrays[DEFINED].place} has an outcome {name!r} of kind {kind!r} and dtype {dtype!r}",
                hint=f"give name, kind ({', '.join(KINDS)}), dtype and definition of each, or omit it",
            )
    found = {name: Outcome(name, kind, dtype, (), definition) for name, kind, dtype, definition in rows}
    return known | found


def _confidences(
    path: Path, arrays: Mapping[str, ArrayFile], sizes: Mapping[str, int], files: dict[str, ArrayFile]
) -> set[str]:
    """Add confidences that are given as probabilities; return which are.

    Raises:
        InvalidInputError: confidences of one of two sets alone.
    """
    probable = set()
    if not any(target.endswith(f"/{LOGIT_CONFIDENCE.name}") for target in files):
        for part in sizes:
            if f"{part}_confidence" in arrays:
                files[f"{part}/{LOGIT_CONFIDENCE.name}"] = as_rows(arrays[f"{part}_confidence"])
                probable.add(f"{part}/{LOGIT_CONFIDENCE.name}")
    held = [part for part in sizes if f"{part}/{LOGIT_CONFIDENCE.name}" in files]
    needed = [part for part in sizes if f"{part}/{CORRECT.name}" in files]
    if held and not set(needed) <= set(held):
        name = "confidence" if probable else LOGIT_CONFIDENCE.name
        raise InvalidInputError(
            f"{path} has {name} of the {held[0]} set alone", hint="give it for both sets, or for neither"
        )
    return probable


def datamodels(path: Path, arrays: Mapping[str, ArrayFile]) -> Runs | None:
    """Read ``masks`` and ``margins`` of the datamodels tool and release: right is a margin above 0.

    Released files are ``train_masks``, ``train_margins`` and ``test_margins`` with the subset fraction behind
    their names: ``train_masks_50pct.npy``. The tool's folder has ``masks``, ``margins`` or ``val_margins``
    (of test examples) and ``_completed``, which models are done. Models with a margin that is NaN are
    excluded.
    """
    start = next((name for name in MASKS if any(n.startswith(name) for n in arrays)), None)
    if start is None or not any("margins" in name for name in arrays):
        return None
    endings = sorted(name.removeprefix(start) for name in arrays if name.startswith(start))
    if len(endings) > 1:
        raise InvalidInputError(
            f"{path} holds masks of several subset fractions: {start}{f', {start}'.join(endings)}",
            hint="put those of one fraction into a folder of their own: different fractions are never pooled",
        )
    names = {part: [f"{name}{endings[0]}" for name in called] for part, called in MARGINS.items()}
    chosen = {part: next((n for n in called if n in arrays), None) for part, called in names.items()}
    held = {part: arrays[name] for part, name in chosen.items() if name is not None}
    if not held:
        raise InvalidInputError(
            f"{path} has {names_of(arrays)}; {' and '.join(n[0] for n in names.values())} missing",
            hint="datamodels come as train_masks, train_margins and test_margins, or masks and margins",
        )
    taken = chosen[layout.TEST] == f"margins{endings[0]}"
    notes = ("margins are taken for those of test examples, as the tool writes them.",) if taken else ()
    mask = flags(arrays[f"{start}{endings[0]}"])
    mask.require((None, None), "b")
    for part, file in held.items():
        file.require((mask.shape[0], mask.shape[1] if part == layout.TRAIN else None), "fiu")
    done, left_out = finished(path, arrays, mask.shape[0], held.values())
    sizes = {layout.TRAIN: mask.shape[1]} | {part: file.shape[1] for part, file in held.items()}

    def read(start: int, stop: int) -> tuple[NDArray[np.bool_], Outcomes]:
        found: dict[str, NDArray[Any]] = {}
        for part, file in held.items():
            values = numbers(rows_at(file, done[start:stop]), file.place)
            found |= {f"{part}/{CORRECT.name}": values > 0, f"{part}/{MARGIN.name}": values}
        return rows_at(mask, done[start:stop]), found

    outcomes = of_sets((RIGHT_BY_MARGIN, MARGIN), held)
    return Runs(
        str(path), "datamodels", len(done), sizes, outcomes, read, names_in(arrays, sizes),
        16 * sum(sizes.values()), (*notes, *left_out),
    )  # fmt: skip


def finished(
    path: Path, arrays: Mapping[str, ArrayFile], n_models: int, margins: Iterable[ArrayFile]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the rows of models that are done, and a note for each reason why others are not.

    Raises:
        InvalidInputError: none is.
    """
    done, notes = np.ones(n_models, dtype=np.bool_), []
    if "_completed" in arrays:
        done &= flags(as_list(arrays["_completed"])).whole((n_models,), "b")
        notes = left_out(n_models - int(done.sum()), n_models, "not completed")
    undefined = np.zeros(n_models, dtype=np.bool_)
    for file in margins:
        step = max(1, SCANNED_BYTES // max(1, file.n_bytes // max(1, n_models)))
        for start in range(0, n_models, step):
            undefined[start : start + step] |= np.isnan(file.rows(start, min(n_models, start + step))).any(
                axis=1
            )
    notes += left_out(int((done & undefined).sum()), n_models, "without a number for each margin (NaN)")
    done &= ~undefined
    if n_models and not done.any():
        raise InvalidInputError(
            f"{path} holds no finished model: {' '.join(notes).removesuffix('.')}",
            hint="check _completed, and the margins",
        )
    return np.flatnonzero(done), tuple(notes)


def left_out(n: int, n_models: int, why: str) -> list[str]:
    """Return a note that says how many models are not imported and why; none for none."""
    return [f"{n:,} of {count(n_models, 'model')} {verb(n)} {why}, and not imported."] if n else []


def rows_at(file: ArrayFile, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return some rows of an array, by ascending numbers."""
    if not len(rows):
        return file.rows(0, 0)
    first, last = int(rows[0]), int(rows[-1]) + 1
    found = file.rows(first, last)
    return found if last - first == len(rows) else found[rows - first]


def of_sets(outcomes: Sequence[Outcome], sets: Sequence[str] | Mapping[str, Any]) -> tuple[Outcome, ...]:
    """Return outcomes as kept of these sets alone."""
    return tuple(replace(outcome, sets=tuple(sets)) for outcome in outcomes)


WHOLE = (CORRECT.name, LOGIT_CONFIDENCE.name, MARGIN.name)  # outcomes of which no value may be missing


def numbers(values: NDArray[Any], place: str, first_row: int = 0, *, missing: bool = False) -> NDArray[Any]:
    """Refuse NaN, unless values may be ``missing``. Infinite ones are numbers: the logit of p = 1 is.

    Raises:
        InvalidInputError: names the row of the first.
    """
    wrong = np.isnan(values)
    if not missing and wrong.any():
        at = np.argwhere(wrong)[0]
        row = [first_row + int(at[0]), *at[1:].tolist()]
        raise InvalidInputError(
            f"{place} holds {values[tuple(at)]} at {row}", hint="omit, or mend, what did not finish"
        )
    return values


def rounding(dtype: np.dtype[Any]) -> float:
    """Return by how much a probability or rate of this type may exceed its bounds by rounding.

    At least a millionth, which float32 leaves in sums; of float16 its own precision.
    """
    return max(1e-6, 2 * float(np.finfo(dtype).eps)) if dtype.kind == "f" else 0.0


def within(values: NDArray[Any], low: float, high: float, place: str, what: str, hint: str) -> NDArray[Any]:
    """Return values limited to bounds that they exceed by no more than rounding.

    Raises:
        InvalidInputError: a value beyond that; ``what`` says what values are.
    """
    slack = rounding(values.dtype)
    wrong = (values < low - slack) | (values > high + slack)
    if wrong.any():
        raise InvalidInputError(f"{place} holds {values[wrong][0]:g}, {what}", hint=hint)
    limited: NDArray[Any] = np.clip(values, low, high)
    return limited


def logits_of(
    p: NDArray[Any], place: str, hint: str = "call logits ..._logit_confidence"
) -> NDArray[np.float64]:
    """Return the logits of probabilities, infinite at 0 and 1.

    Raises:
        InvalidInputError: a number that is not a probability, even when rounded.
    """
    exact = within(p, 0, 1, place, "which is not a probability", hint)
    exact = exact.astype(np.float64)
    with np.errstate(divide="ignore"):
        logits: NDArray[np.float64] = np.log(exact) - np.log1p(-exact)
    return logits
