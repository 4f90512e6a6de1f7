"""Commits of trained batches, each made in a thread while the next batch is trained.

At most one is made at a time, so that they keep the order of the batches; each is as atomic as ever. One for
which memory was too short beside a training is made again once that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Generic, Self, TypeVar

from memdb.recipes import is_out_of_memory

T = TypeVar("T")


@dataclass(frozen=True)
class _Pending(Generic[T]):
    future: Future[T]
    commit: Callable[[], T]
    n_models: int
    is_second: bool = False

    @property
    def error(self) -> BaseException | None:
        return self.future.exception() if self.future.done() else None

    @property
    def may_succeed(self) -> bool:
        """Whether it failed since memory was too short, for the first time."""
        return self.error is not None and not self.is_second and is_out_of_memory(self.error)


class Commits(Generic[T]):
    """The commit that is being made, if any. Leaving the context waits for it, whatever happened."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "memdb commit")
        self._pending: _Pending[T] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    @property
    def n_pending(self) -> int:
        """The number of models that are trained but not known to be committed."""
        return self._pending.n_models if self._pending else 0

    def have_failed(self) -> bool:
        """Whether the commit failed, which `made` will raise: what is trained meanwhile is of no use."""
        pending = self._pending
        return pending is not None and pending.error is not None and not pending.may_succeed

    def begin(self, commit: Callable[[], T], n_models: int) -> None:
        """Begin a commit; the one before must have been made."""
        if self._pending:
            raise RuntimeError("two commits at once would lose their order")
        self._pending = _Pending(self._thread.submit(commit), commit, n_models)

    def made_meanwhile(self) -> Iterator[T]:
        """Yield what the commit returned if it has been made; one that failed is left to `made`.

        Call it while a batch is trained. If Ctrl-C interrupts the caller while it handles the result, `made`
        yields that again.
        """
        pending = self._pending
        if pending is not None and pending.future.done() and pending.error is None:
            yield pending.future.result()
            self._pending = None

    def made(self, patience: float | None = None) -> Iterator[T]:
        """Yield what the commit returned, if there is one; wait for it, by default as long as it takes.

        It is called while nothing is trained.

        Args:
            patience: the seconds after which it is left pending.

        Raises:
            MemdbError: whatever the commit raised.
        """
        if self._pending is None:
            return
        if wait([self._pending.future], patience).not_done:  # Ctrl-C here leaves it pending
            return
        if self._pending.may_succeed:
            again = self._thread.submit(self._pending.commit)
            self._pending = replace(self._pending, future=again, is_second=True)
            wait([again])  # Ctrl-C here leaves it pending, too
        done, self._pending = self._pending, None
        yield done.future.result()
