"""Progress: a bar in a terminal; elsewhere a line for each commit of a training, and nothing for the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from rich.console import Console

from memdb.render.tables import number

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


class Status(Protocol):
    """The progress of a training run (see `memdb.TrainingStatus`)."""

    @property
    def n_asked(self) -> int | None: ...  # noqa: D102
    @property
    def n_committed(self) -> int: ...  # noqa: D102
    @property
    def n_in_flight(self) -> float: ...  # noqa: D102
    @property
    def test_accuracy(self) -> float | None: ...  # noqa: D102
    @property
    def mean_half_width(self) -> float | None: ...  # noqa: D102


def can_draw(console: Console) -> bool:
    """Tell whether a bar can be redrawn in place: in a terminal, or in a notebook with ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


S = TypeVar("S", bound=Status)


@contextmanager
def bar_of_training(console: Console, besides: Callable[[S], None]) -> Iterator[Callable[[S], None]]:
    """Give a progress callback that draws a bar, and calls ``besides``."""
    with TrainingProgress(console) as bar:

        def both(status: S) -> None:
            bar(status)
            besides(status)

        yield both


class _Bar:
    """A bar across the terminal, with columns before it; nothing is drawn where there is none."""

    def __init__(self, console: Console, *columns: ProgressColumn, transient: bool = True) -> None:
        from rich.progress import Progress  # noqa: PLC0415 - neither questions nor help draw a bar

        self._console = console
        self._progress = Progress(*columns, console=console, expand=True, transient=transient)

    def __enter__(self) -> Self:
        if can_draw(self._console):
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if can_draw(self._console):
            self._progress.stop()


class Counting(_Bar):
    """Shows how many of how many ``what`` are done, or a percentage where ``what`` is None."""

    def __init__(self, console: Console, what: str | None) -> None:
        from rich.progress import (  # noqa: PLC0415 - see above
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        percentage = (TextColumn("{task.percentage:>3.0f} %"),)
        columns = percentage if what is None else (MofNCompleteColumn(), TextColumn(what))
        super().__init__(console, *columns, BarColumn(bar_width=None), TimeRemainingColumn())
        self._task = self._progress.add_task("", total=None, visible=False)

    def __call__(self, done: int, total: int) -> None:
        """Show a count; the first one makes the bar appear."""
        self._progress.update(self._task, completed=done, total=total, visible=True)


class TrainingProgress(_Bar):
    """Shows models, rate, time left, test accuracy and the mean half-width of memorization intervals."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - see above

        super().__init__(
            console,
            TextColumn("{task.fields[models]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("test {task.fields[accuracy]}{task.fields[width]}"),
            transient=False,
        )
        self._started = time.monotonic()
        self._first: tuple[float, float] | None = None  # when progress was first reported, and how much
        self._n_shown = 0
        self._task = self._progress.add_task("", total=None, models="", rate="", accuracy="\u2013", width="")

    def before(self, done: int, total: int) -> None:
        """Show how much of what has to be done before the first model is done."""
        self._started = time.monotonic()  # of the training, as far as is known
        self._progress.update(self._task, total=total, completed=done, models="comparing pictures", rate="")

    def _rate(self, done: float) -> float:
        """Return models a second since the first progress: what precedes it happens once."""
        now = time.monotonic()
        if done and self._first is None:
            self._first = now, done
        since, before = self._first or (now, done)
        if done <= before:
            since, before = self._started, 0.0
        return (done - before) / (now - since) if now > since else 0.0

    def __call__(self, status: Status) -> None:
        """Show a status."""
        done = status.n_committed + status.n_in_flight
        rate = self._rate(done)
        speed = f"{rate:.1f}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s each"
        accuracy, half = number(status.test_accuracy), status.mean_half_width
        n_models = status.n_committed if status.n_asked is None else status.n_asked
        of = "" if status.n_asked is None else f"/{status.n_asked}"
        models = f"{status.n_committed}{of} model{'' if n_models == 1 else 's'}"
        if can_draw(self._console):
            self._progress.update(
                self._task, total=status.n_asked, completed=done, models=models, rate=speed,
                accuracy=accuracy, width="" if half is None else f" \u00b1{number(half)}",
            )  # fmt: skip
        elif status.n_committed > self._n_shown:
            self._n_shown = status.n_committed
            known = "" if half is None else f", mean half-width of memorization {number(half)}"
            self._console.print(f"{models}, {speed}, test accuracy {accuracy}{known}", soft_wrap=True)
