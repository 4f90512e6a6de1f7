"""A training run in a terminal: its limits in words, its bar, and what to type when it was stopped."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from memdb.cli.app import INTERRUPTED, say
from memdb.cli.options import AddOption, MaxTimeOption, TaskIdOption, UntilOption
from memdb.cli.store_options import Place
from memdb.errors import InvalidInputError
from memdb.render.progress import TrainingProgress
from memdb.render.tables import console, number
from memdb.wording import count, verb

if TYPE_CHECKING:
    from memdb.database import Database
    from memdb.training.run import TrainingStatus

Result = TypeVar("Result")
TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


@dataclass(frozen=True)
class Limited:
    """When a run ends, as it was typed."""

    add: AddOption = None
    until_half_width: UntilOption = None
    max_time: MaxTimeOption = None
    task_id: TaskIdOption = None

    def __post_init__(self) -> None:
        if self.max_time is not None:
            seconds_of(self.max_time)

    def arguments(self) -> dict[str, Any]:
        """Return what `Database.train` calls them."""
        seconds = None if self.max_time is None else seconds_of(self.max_time)
        return {
            "add": self.add,
            "until_half_width": self.until_half_width,
            "max_seconds": seconds,
            "task_id": self.task_id,
        }

    def options(self, done: TrainingStatus) -> str:
        """Return the options that resume an interrupted run; a task works out what remains from the store."""
        add = self.add if self.add is None or self.task_id is not None else self.add - done.n_committed
        return _options({**vars(self), "add": add})

    def why(self, done: TrainingStatus) -> str:
        """Return a sentence on why a run ended before all models were trained, or found nothing to do."""
        width = done.mean_half_width
        if self.task_id is not None and done.n_asked == 0:
            n = self.add or 0
            of_task = f"{count(n, 'model')} of task {self.task_id}"
            return f" {of_task} {verb(n, 'was', 'were')} there already."
        if self.until_half_width is not None and width is not None and width <= self.until_half_width:
            return f" The mean half-width is {number(width)}."
        if self.max_time is not None and done.n_committed != done.n_asked:
            dropped = "" if done.n_committed else ": less than one batch takes; see --batch-models"
            return f" It ended at --max-time {self.max_time}{dropped}."
        return ""


def train_visibly(
    db: Database, limited: Limited, place: Place, given: Mapping[str, Any], *, again: str | None = None
) -> TrainingStatus:
    """Train with a progress bar; on Ctrl-C or SIGTERM say what is kept and how to go on."""
    n_sketched = _n_sketched(db, given)
    done, last = watched(db.train, **limited.arguments(), **given)
    if done is None:
        if given.get("sketch"):
            left = given["sketch"] - (_n_sketched(db, given) - n_sketched)
            given = {**given, "sketch": left} if left > 0 else {**given, "sketch": None, "sketch_size": None}
        command = again or f"train{limited.options(last)}{_options(given)}"
        say(*_how_to_go_on(db, place, last, command))
        sys.exit(INTERRUPTED)
    return last


def watched(
    train: Callable[..., Result], *, compares: bool = False, **given: Any
) -> tuple[Result | None, TrainingStatus]:
    """Call what trains models with a progress bar; return its result and last status.

    The result is None if Ctrl-C or SIGTERM stopped it. What ``compares`` pictures before says how far it is.
    """
    from memdb.recipes import without_gpus
    from memdb.training.run import NOTHING_YET

    bar = TrainingProgress(console(stderr=True))
    last = NOTHING_YET

    def progress(status: TrainingStatus) -> None:
        nonlocal last
        last = status
        bar(status)
        if status.remark:
            say(f"Note: {status.remark}.")

    given |= {"comparing": bar.before} if compares else {}
    signals = Signals(gently=bool(given.get("workers") or given.get("ray")))
    try:
        with signals, bar, without_gpus(given.get("device", "auto")):
            done = train(progress=progress, stop_requested=signals.stop_requested, **given)
    except KeyboardInterrupt:
        return None, last
    return None if signals.stop_requested() else done, last


def _n_sketched(db: Database, given: Mapping[str, Any]) -> int:
    """Return how many models are sketched, if a run is to add to them."""
    from memdb.store.read_sketches import all_sketched

    return len(all_sketched(db.snapshot)) if given.get("sketch") else 0


class Signals:
    """Ctrl-C and SIGTERM while models are trained.

    They interrupt a recipe wherever it is. Workers are asked ``gently`` first, so that what they are about
    to commit is counted; a second signal interrupts at once.
    """

    def __init__(self, *, gently: bool) -> None:
        self._gently = gently
        self._heard = False
        self._previous: list[tuple[int, Any]] = []

    def __enter__(self) -> Self:
        for sign in (signal.SIGINT, signal.SIGTERM):
            self._previous.append((sign, signal.signal(sign, self._hear)))
        return self

    def __exit__(self, *_: object) -> None:
        for sign, handler in self._previous:
            signal.signal(sign, handler)

    def _hear(self, _signal: int, _frame: object) -> None:
        if self._heard or not self._gently:
            raise KeyboardInterrupt
        self._heard = True

    def stop_requested(self) -> bool:
        """Whether one was received."""
        return self._heard


def _how_to_go_on(db: Database, place: Place, last: TrainingStatus, command: str) -> list[str]:
    if last.n_asked is not None and last.n_committed == last.n_asked:
        return [f"Stopped; all was done: {count(last.n_asked, 'model')} added to {db.url}."]
    n = last.n_committed
    added = count(n, "model") if last.n_asked is None else f"{n:,} of {count(last.n_asked, 'model')}"
    return [
        f"Stopped. {added} {verb(n, 'was', 'were')} added to {db.url}; the batch in flight was dropped.",
        f"Go on with: {place.command(command)}",
    ]


def seconds_of(text: str) -> float:
    """Return the seconds that a time such as ``1h30m`` has; a bare number is seconds.

    Raises:
        InvalidInputError: no time.
    """
    match = TIME.fullmatch(text.strip().lower())
    parts = [float(part) for part in (match.groups("0") if match else ())]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if seconds <= 0:
        raise InvalidInputError(f"--max-time {text!r} is not a time", hint="use e.g. 90s, 30m, 1h30m or 2h")
    return seconds


def _options(given: Mapping[str, Any]) -> str:
    """Return options as they are typed, but for those that are what they are anyway."""
    usual = {"device": "auto", "task_cpus": 1, "compact": True}
    shown = {name: value for name, value in given.items() if value not in {None, usual.get(name)}}
    if shown.pop("compact", None) is False:
        return f"{_options(shown)} --no-compact"
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in shown.items())
