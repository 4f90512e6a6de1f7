"""Matrices of influence in other people's files, as pairs: read in bands, of too many the strongest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.interop.arrays import ArrayFile
from memdb.interop.run_formats import within
from memdb.wording import count, verb

MOST_PAIRS = 100_000_000  # of a score table: 1.2 GB while it is written
BAND_BYTES = 64 << 20
STEPS = 1 << 20  # of strength, from 0 to 1, in which the strongest are looked for


@dataclass(frozen=True)
class Pairs:
    """The pairs of a matrix that have a score, and what the user should know of them.

    ``are_assumed``: which axis is of test examples is nothing that the file says.
    """

    train_id: NDArray[np.int32]
    test_id: NDArray[np.int32]
    influence: NDArray[np.floating]
    n_train: int
    n_test: int
    are_assumed: bool
    notes: tuple[str, ...]


def rates(values: NDArray[np.floating], place: str) -> NDArray[np.floating]:
    """Return differences of two rates, limited to -1 and 1, which rounding may exceed.

    Raises:
        InvalidInputError: a value beyond that.
    """
    return within(values, -1, 1, place, "which no difference of two rates can be", "scores go from -1 to 1")


def scores_in(file: ArrayFile, shape: tuple[int | None, ...]) -> NDArray[np.floating]:
    """Return scores, NaN where there is none, within -1 and 1."""
    return as_scores(file.whole(shape, "fiu"), file.place)


def as_scores(values: NDArray[np.floating], place: str) -> NDArray[np.floating]:
    """Return scores as they are kept: float32 as it is, others as float64."""
    found = rates(values, place)
    return found if found.dtype == np.float32 else found.astype(np.float64)


def missing(n_missing: int, place: str) -> tuple[str, ...]:
    """Return a note on scores that are missing, if any are."""
    what = f"{count(n_missing, 'score')} {verb(n_missing)}"
    return (f"{what} NaN in {place}, and so missing.",) if n_missing else ()


def pairs_of(file: ArrayFile, known: Mapping[str, int]) -> Pairs:
    """Return the pairs of a matrix [test, train], or [train, test] where ``known`` sizes say so.

    Of more than `MOST_PAIRS`, the strongest are taken.

    Raises:
        InvalidInputError: no matrix of scores, or one that fits no known size.
    """
    file.require((None, None), "fiu")
    turned, notes = _turned(file, known)
    rows, columns, influence, more = _strongest(file)
    test, train = (columns, rows) if turned else (rows, columns)
    n_test, n_train = file.shape[::-1] if turned else file.shape
    assumed = not turned and bool(notes)
    return Pairs(train, test, influence, n_train, n_test, assumed, (*notes, *more))


def _turned(file: ArrayFile, known: Mapping[str, int]) -> tuple[bool, tuple[str, ...]]:
    """Tell whether a matrix is [train, test], and what the user should know of its axes."""
    wanted = known.get(layout.TEST), known.get(layout.TRAIN)
    fits = [
        all(n in {None, m} for n, m in zip(wanted, shape, strict=True))
        for shape in (file.shape, file.shape[::-1])
    ]
    if fits == [False, True]:
        return True, (f"{file.place} is [train, test].",)
    if not any(fits):
        raise InvalidInputError(
            f"{file.place} has shape {file.shape}, and there are {wanted[1] or 'other'} training examples",
            hint="give influence as [test, train]",
        )
    n_test, n_train = file.shape
    taken = f"{file.place} is taken as [test, train]: {n_test:,} test, {n_train:,} training."
    return False, (taken,) if all(fits) else ()


def _strongest(
    file: ArrayFile,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.floating], tuple[str, ...]]:
    """Return the rows, columns and values of a matrix, by rows; of too many, the strongest."""
    n_pairs = math.prod(file.shape)
    everything: tuple[int, float, tuple[str, ...]] = (n_pairs, -1.0, ())
    n_known, least, notes = _threshold(file, n_pairs) if n_pairs > MOST_PAIRS else everything
    rows, columns = np.empty(n_known, dtype=np.int32), np.empty(n_known, dtype=np.int32)
    kept = np.float32 if file.dtype == np.float32 else np.float64
    values: NDArray[np.floating] = np.empty(n_known, dtype=kept)
    n = 0
    for start, band in _bands(file):
        row, column = np.nonzero(np.abs(band) >= least)  # NaN is not
        end = n + len(row)
        rows[n:end], columns[n:end], values[n:end] = row + start, column, band[row, column]
        n = end
    n_missing = n_pairs - n if least < 0 else 0
    return rows[:n], columns[:n], values[:n], (*notes, *missing(n_missing, file.place))


def _bands(file: ArrayFile) -> Iterator[tuple[int, NDArray[np.floating]]]:
    step = max(1, BAND_BYTES // max(1, file.n_bytes // max(1, file.shape[0])))
    for start in range(0, file.shape[0], step):
        yield start, as_scores(file.rows(start, min(file.shape[0], start + step)), file.place)


def _threshold(file: ArrayFile, n_pairs: int) -> tuple[int, float, tuple[str, ...]]:
    """Return how many pairs are the strongest that a table holds, how strong each is, and a note."""
    counts = np.zeros(STEPS + 1, dtype=np.int64)
    for _, band in _bands(file):
        strength = np.abs(band[~np.isnan(band)]).astype(np.float64)
        counts += np.bincount((strength * STEPS).astype(np.int64), minlength=STEPS + 1)
    at_least = np.append(np.cumsum(counts[::-1])[::-1], 0)  # [step]: pairs as strong or stronger
    step = int(np.argmax(at_least <= MOST_PAIRS))
    n_kept = int(at_least[step])
    if not n_kept:
        raise InvalidInputError(
            f"{file.place} holds {n_pairs:,} pairs, {int(at_least[STEPS]):,} of them 1 or -1, and a score "
            f"table at most {MOST_PAIRS:,}",
            hint="import the pairs that matter: tr_idx, tt_idx and infl of each",
        )
    note = (
        f"{file.place} holds {n_pairs:,} pairs. Only the {n_kept:,} strongest are imported, helpful or "
        f"harmful: those of at least {step / STEPS:.6f}. Others are missing, as if not published."
    )
    return n_kept, step / STEPS, (note,)
