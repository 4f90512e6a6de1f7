"""Counts of single examples: how many models had each, how many are right on it, how many both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits, layout
from memdb.query.udfs import Words
from memdb.store import Snapshot

Totals = Mapping[str, NDArray[np.int32]]


def totals(snapshot: Snapshot, set_name: str, words_of: Callable[[str], Words]) -> Totals:
    """Return ``n_correct`` of every example of a set; of training examples ``n_in`` and ``k_in``, too.

    They are stored with blocks; of other models, and where some of a block's were withdrawn, the bits are
    counted: train/correct band by band, so that it is never in memory whole. ``words_of`` gives what is read
    for all models at once, by its path, and is kept for the pairs.
    """
    found = snapshot.stored_counts(set_name)
    uncounted = [not stored for stored in snapshot.counted]
    if not any(uncounted):
        return found
    if set_name != layout.TRAIN:
        right = (
            words_of(f"{set_name}/correct")
            if all(uncounted)
            else snapshot.words(f"{set_name}/correct", of=uncounted)
        )
        return {"n_correct": found["n_correct"] + bits.count(right)}
    if all(uncounted):
        _count_bands(snapshot, uncounted, partial(words_of, layout.MASK), found)
    else:
        _count_bands(snapshot, uncounted, partial(snapshot.words, layout.MASK, of=uncounted), found)
    return found


def times_in(snapshot: Snapshot) -> NDArray[np.int32]:
    """Return ``n_in`` of every training example alone."""
    found = snapshot.stored_counts(layout.TRAIN)["n_in"]
    uncounted = [not stored for stored in snapshot.counted]
    return found + bits.count(snapshot.words(layout.MASK, of=uncounted)) if any(uncounted) else found


def _count_bands(snapshot: Snapshot, of: Sequence[bool], mask_of: Callable[[], Words], found: Totals) -> None:
    """Add the counts of training examples over some of the parts, whose masks are read meanwhile."""
    bands = snapshot.band_parts(f"{layout.TRAIN}/correct", of)
    with ThreadPoolExecutor(2) as pool:
        masks = pool.submit(mask_of)
        following = pool.submit(next, bands, None)
        while (band := following.result()) is not None:
            following = pool.submit(next, bands, None)  # read while this one is counted
            start, stop, parts = band
            for first, correct in _in_words(parts, stop - start):
                inside = masks.result()[start:stop, first : first + correct.shape[1]]
                found["n_correct"][start:stop] += bits.count(correct)
                found["n_in"][start:stop] += bits.count(inside)
                found["k_in"][start:stop] += bits.count_and(inside, correct)


def _in_words(parts: Sequence[tuple[bits.Packed, int]], n_rows: int) -> Iterator[tuple[int, Words]]:
    """Yield parts as words, each with its first word; joined where one does not begin with a word.

    Full blocks do, and joining costs memory, which costs time.
    """
    starts = np.cumsum([0, *(count for _, count in parts)])
    if (starts[:-1] % 64 == 0).all():
        for start, (part, _) in zip(starts.tolist(), parts, strict=False):
            yield start // 64, bits.words(part)
    else:
        yield 0, bits.joined_words(parts, n_rows)
