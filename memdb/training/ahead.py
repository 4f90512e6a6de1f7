"""The next batch is prepared in a thread while one is trained: its masks, and what its recipe draws ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

from memdb.recipes import is_out_of_memory

T = TypeVar("T")
B = TypeVar("B")


def with_next(batches: Iterable[B], *, look: bool = True) -> Iterator[tuple[B, B | None]]:
    """Yield every batch and the one after it, None after the last; always None unless one is to ``look``."""
    if not look:
        yield from ((batch, None) for batch in batches)
        return
    coming = iter(batches)
    batch = next(coming, None)
    while batch is not None:
        following = next(coming, None)
        yield batch, following
        batch = following


class Ahead(Generic[B, T]):
    """Makes things of batches, one batch ahead where that is known."""

    def __init__(self, make: Callable[[B], T]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "memdb ahead")
        self._coming: Future[T] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def take(self, batch: B, following: B | None) -> T:
        """Return what is made of a batch, and begin with the one that follows.

        What memory was too short for beside a training, which has ended, is made again.
        """
        coming, self._coming = self._coming, None
        error = None if coming is None else coming.exception()
        if coming is None or (error is not None and is_out_of_memory(error)):
            del coming, error  # which keeps all arrays of its frames alive
            made = self._make(batch)
        else:
            made = coming.result()
        if following is not None:
            self._coming = self._thread.submit(self._make, following)
        return made
