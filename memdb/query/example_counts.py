"""Counts per example: the models trained on it, the models correct on it, and those that are both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits, layout
from memdb.query.examples import keeps_own
from memdb.query.udfs import Words
from memdb.store import Snapshot

Totals = Mapping[str, NDArray[np.int32]]


def totals(snapshot: Snapshot, set_name: str, words_of: Callable[[str], Words]) -> Totals:
    """Return ``n_correct`` of every example of a set and, of training examples, ``n_in`` and ``k_in``.

    Blocks store these counts. For all other models, and for blocks with retracted models, the bits are
    counted: train/correct band by band, so that it is never in memory as a whole. ``words_of`` reads the bits
    of all models by path and caches them for the pairs.
    """
    counts = snapshot.stored_counts(set_name)
    uncounted = [not stored for stored in snapshot.counted]
    if not any(uncounted):
        return counts
    if set_name != layout.TRAIN:
        right = (
            words_of(f"{set_name}/correct")
            if all(uncounted)
            else snapshot.words(f"{set_name}/correct", of=uncounted)
        )
        return {"n_correct": counts["n_correct"] + bits.count(right)}
    if all(uncounted):
        _count_bands(snapshot, uncounted, partial(words_of, layout.MASK), counts)
    else:
        _count_bands(snapshot, uncounted, partial(snapshot.words, layout.MASK, of=uncounted), counts)
    return counts


def times_in(snapshot: Snapshot) -> NDArray[np.int32]:
    """Return ``n_in`` of every training example."""
    if not keeps_own(snapshot):
        return bits.count(snapshot.words(layout.MASK)).astype(np.int32)
    n_in = snapshot.stored_counts(layout.TRAIN)["n_in"]
    uncounted = [not stored for stored in snapshot.counted]
    return n_in + bits.count(snapshot.words(layout.MASK, of=uncounted)) if any(uncounted) else n_in


def _count_bands(
    snapshot: Snapshot, of: Sequence[bool], mask_of: Callable[[], Words], counts: Totals
) -> None:
    """Add the counts over the segments and blocks in ``of``, reading masks and outcomes in parallel."""
    bands = snapshot.band_parts(f"{layout.TRAIN}/correct", of)
    with ThreadPoolExecutor(2) as pool:
        masks = pool.submit(mask_of)
        following = pool.submit(next, bands, None)
        while (band := following.result()) is not None:
            following = pool.submit(next, bands, None)  # read ahead
            start, stop, parts = band
            for first, correct in _in_words(parts, stop - start):
                inside = masks.result()[start:stop, first : first + correct.shape[1]]
                counts["n_correct"][start:stop] += bits.count(correct)
                counts["n_in"][start:stop] += bits.count(inside)
                counts["k_in"][start:stop] += bits.count_and(inside, correct)


def _in_words(parts: Sequence[tuple[bits.Packed, int]], n_rows: int) -> Iterator[tuple[int, Words]]:
    """Yield bits as words, each with the position of its first word, joined unless all are word-aligned.

    Full blocks are aligned, and joining would allocate and copy.
    """
    starts = np.cumsum([0, *(count for _, count in parts)])
    if (starts[:-1] % 64 == 0).all():
        for start, (part, _) in zip(starts.tolist(), parts, strict=False):
            yield start // 64, bits.words(part)
    else:
        yield 0, bits.joined_words(parts, n_rows)
