"""Counts of single examples: how many models are right on each, and how many of those that had it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from memdb import bits, layout
from memdb.query.counting import Words
from memdb.store import Snapshot


def own_counts(snapshot: Snapshot, mask_of: Callable[[], Words]) -> dict[str, NDArray[np.int32]]:
    """Return ``n_correct`` and ``k_in`` of every training example, [train].

    Reads its bits in bands, so that they are never in memory whole; the masks are asked for once there is
    something to count.
    """
    n_train = snapshot.manifest.train.n_examples
    found = {name: np.zeros(n_train, dtype=np.int32) for name in ("n_correct", "k_in")}
    bands = snapshot.band_parts(f"{layout.TRAIN}/correct")
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, bands, None)
        while (band := following.result()) is not None:
            following = pool.submit(next, bands, None)  # read while this one is counted
            start, stop, parts = band
            mask = mask_of()[start:stop]
            for first, correct in _in_words(parts, stop - start):
                found["n_correct"][start:stop] += bits.count(correct)
                inside = mask[:, first : first + correct.shape[1]]
                found["k_in"][start:stop] += bits.count_and(inside, correct)
    return found


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
