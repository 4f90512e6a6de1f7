"""Which training examples a removal experiment removes: thresholds on memorization, and their controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.format.experiment import RULES, Arm, Experiment, Pairs, Source
from memdb.query.arrow import values_of
from memdb.query.examples import require_models
from memdb.query.intervals import IntervalSpec
from memdb.query.options import Order, RankedQuery
from memdb.query.questions import ModelAnswers
from memdb.query.relations import Relations
from memdb.wording import count

THRESHOLDS = (0.1, 0.25, 0.5)
NEAR_DUPLICATE = 0.9  # influence at or above which a test example has a near-duplicate
MOST_THRESHOLDS = 100
RANDOM = ("random", "matched")

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class LookAlikes:
    """Pairs of a training and a test example that are alike, and how their content was compared."""

    train_ids: Ids
    test_ids: Ids
    content: str


@dataclass(frozen=True, slots=True)
class Design:
    """What to compare.

    Attributes:
        thresholds: on memorization.
        rules: what must reach a threshold: ``raw`` scores, the ``lower`` ends of their simultaneous
            intervals, or ``shrunk`` scores.
        controls: what is removed instead: as many at ``random``, as many ``matched``.
        add_back: add each slice between two thresholds to the examples below the lowest.
        fraction: train on a random share of what is left.
    """

    thresholds: tuple[float, ...] = THRESHOLDS
    rules: tuple[str, ...] = ("raw",)
    controls: tuple[str, ...] = RANDOM
    add_back: bool = False
    fraction: float = 1.0

    def __post_init__(self) -> None:
        _require_known("rules", self.rules, RULES)
        _require_known("controls", self.controls, RANDOM)
        object.__setattr__(self, "thresholds", tuple(sorted(set(self.thresholds))))
        if not 1 <= len(self.thresholds) <= MOST_THRESHOLDS:
            raise InvalidInputError(
                f"there are {len(self.thresholds)} thresholds, and 1 to {MOST_THRESHOLDS} are possible",
                hint="use e.g. thresholds=[0.1,0.25,0.5]",
                parameter="thresholds",
            )
        odd = next((t for t in self.thresholds if not -1 < t <= 1), None)
        if odd is not None:
            raise InvalidInputError(
                f"the threshold {odd:g} is not a memorization, which lies from -1 to 1",
                hint="use e.g. thresholds=[0.1,0.25,0.5]",
                parameter="thresholds",
            )
        if not 0 < self.fraction <= 1:
            raise InvalidInputError(
                f"the fraction {self.fraction:g} of what is left is not above 0 and at most 1",
                hint="omit it to train on all that is left",
                parameter="fraction",
            )


class Chooser:
    """Draws up the arms of an experiment from the memorization scores of a store."""

    def __init__(
        self,
        relations: Relations,
        level: float,
        seed: int,
        alike: Callable[[], LookAlikes | None] = lambda: None,
    ) -> None:
        require_models(relations.snapshot)
        self._relations, self._level, self._alike = relations, level, alike
        self._rng = np.random.default_rng(seed)
        self._labels = relations.examples[layout.TRAIN].labels
        self._n_train = len(self._labels)

    @cached_property
    def scores(self) -> dict[str, NDArray[np.float64]]:
        """By rule, the score of each training example that thresholds apply to; NaN where there is none."""
        query = RankedQuery(
            self._n_train,
            Order("shrunk", "helps", "once", ranks=False),
            IntervalSpec("simultaneous", self._level),
        )
        table = ModelAnswers(self._relations).top_memorized(None, query)
        ids = values_of(table.column("train_id"))
        scores = {}
        for rule, column in {
            "raw": "memorization",
            "lower": "lo",
            "shrunk": "shrunk",
            "held_out": "p_out",
        }.items():
            scores[rule] = np.full(self._n_train, np.nan)
            scores[rule][ids] = np.array(table.column(column).to_pylist(), dtype=np.float64)
        return scores

    def experiment(self, design: Design) -> Experiment:
        """Return the experiment, whose first rule must remove something at every threshold.

        Raises:
            InvalidInputError: a threshold that removes nothing, everything or a whole class.
        """
        arms = self.arms(design)
        snapshot = self._relations.snapshot
        source = Source(snapshot.manifest.store_id, snapshot.n_models, snapshot.models_sha256)
        removed = [arm.removed for arm in arms if arm.removed is not None and arm.control == "memorized"]
        every = np.unique(np.concatenate(removed))
        twins, alike = self._near_duplicates(every), self._alike()
        if alike is None:
            return Experiment(tuple(arms), source, design.fraction, twins)
        look_alikes = _pairs_of(every, alike.train_ids, alike.test_ids)
        return Experiment(tuple(arms), source, design.fraction, twins, look_alikes, alike.content)

    def arms(self, design: Design) -> list[Arm]:
        """Return the arms of the experiment: none of a later rule, or of matched examples, where none are.

        Raises:
            InvalidInputError: as `experiment`.
        """
        arms = [Arm("all", design.rules[0], design.thresholds[0], 0, np.zeros(0, dtype=np.int32))]
        for rule in design.rules:
            arms += self._arms(rule, design, must_remove=rule == design.rules[0])
        return arms

    @property
    def models_sha256(self) -> str:
        """Which models the scores are of."""
        return self._relations.snapshot.models_sha256

    def _arms(self, rule: str, design: Design, *, must_remove: bool) -> Iterator[Arm]:
        lowest: Ids | None = None
        for threshold, above in zip(design.thresholds, (*design.thresholds[1:], np.inf), strict=True):
            removed = self.memorized(rule, threshold)
            if not len(removed) and not must_remove:
                continue
            self._require_sound(rule, threshold, removed)
            lowest = removed if lowest is None else lowest
            yield Arm("memorized", rule, threshold, len(removed), removed, self._held_out(removed))
            if "random" in design.controls:
                every = np.arange(self._n_train, dtype=np.int32)
                yield Arm("random", rule, threshold, len(removed), None, self._held_out(every))
            matched = self._matched(removed) if "matched" in design.controls else None
            if matched is not None:
                yield Arm("matched", rule, threshold, len(removed), matched, self._held_out(matched))
            if design.add_back:
                kept = self.memorized(rule, threshold)
                slice_ = kept[~np.isin(kept, self.memorized(rule, above))]
                if len(slice_):
                    without = np.setdiff1d(lowest, slice_).astype(np.int32)
                    yield Arm("added", rule, threshold, len(without), without)

    def memorized(self, rule: str, threshold: float) -> Ids:
        """Return the training examples whose score by a rule reaches a threshold."""
        return np.flatnonzero(np.nan_to_num(self.scores[rule], nan=-np.inf) >= threshold).astype(np.int32)

    def _require_sound(self, rule: str, threshold: float, removed: Ids) -> None:
        left = np.setdiff1d(np.arange(self._n_train), removed)
        lost = np.setdiff1d(self._labels, self._labels[left])
        scores = self.scores[rule]
        highest = (
            f"no training example has a {rule} score"
            if np.isnan(scores).all()
            else f"the highest {rule} score is {np.nanmax(scores):.3g}"
        )
        what = (
            f"nothing: {highest}"
            if not len(removed)
            else "every training example"
            if not len(left)
            else f"all {count(int((self._labels == lost[0]).sum()), 'training example')} of class {lost[0]}"
            if len(lost)
            else ""
        )
        if what:
            raise InvalidInputError(
                f"the threshold {threshold:g} removes {what}",
                hint="use another one, such as thresholds=[0.25,0.5]",
                parameter="thresholds",
            )

    def _matched(self, removed: Ids) -> Ids | None:
        """Return other examples of the same classes, each the nearest left in held-out accuracy.

        None if a class has too few. Ties are broken at random.
        """
        hard = self.scores["held_out"]
        matched: list[NDArray[np.int64]] = []
        for label in np.unique(self._labels[removed]):
            wanted = removed[self._labels[removed] == label]
            free = np.setdiff1d(np.flatnonzero((self._labels == label) & ~np.isnan(hard)), removed)
            if len(free) <= len(wanted):  # would remove the class, or cannot
                return None
            matched.append(_nearest(hard[wanted], free, hard, self._rng))
        return np.sort(np.concatenate(matched)).astype(np.int32)

    def _near_duplicates(self, removed: Ids) -> tuple[tuple[int, int], ...]:
        """Return the pairs of a removed and a test example of which the first all but decides the second."""
        if self._relations.snapshot.manifest.set_named(layout.TEST).n_examples == 0:
            return ()
        table = ModelAnswers(self._relations).pairs({"min_influence": NEAR_DUPLICATE})
        return _pairs_of(removed, *(values_of(table.column(name)) for name in ("train_id", "test_id")))

    def _held_out(self, ids: Ids) -> float | None:
        """Return how often models without an example are right on it, mean over some; None if none tells."""
        known = self.scores["held_out"][ids]
        known = known[~np.isnan(known)]
        return float(known.mean()) if len(known) else None


def _pairs_of(removed: Ids, train_ids: Ids, test_ids: Ids) -> Pairs:
    """Return the pairs whose training example is removed."""
    kept = np.isin(train_ids, removed)
    return tuple(zip(train_ids[kept].tolist(), test_ids[kept].tolist(), strict=True))


def _nearest(
    wanted: NDArray[np.float64], free: NDArray[np.int64], hard: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return a different free example for each wanted held-out accuracy, the hardest being served first."""
    free = rng.permutation(free)
    left = np.ones(len(free), dtype=np.bool_)
    taken = []
    for value in np.sort(wanted):
        distance = np.where(left, np.abs(hard[free] - value), np.inf)
        at = int(np.argmin(distance))
        left[at] = False
        taken.append(free[at])
    return np.array(taken, dtype=np.int64)


def _require_known(parameter: str, given: Sequence[str], known: Sequence[str]) -> None:
    odd = next((name for name in given if name not in known), None)
    if odd is not None or len(set(given)) < len(given) or (parameter == "rules" and not given):
        raise InvalidInputError(
            f"{parameter} {', '.join(given) or 'without any'} are not different ones of {', '.join(known)}",
            hint=f"use e.g. {parameter}={known[0]}",
            parameter=parameter,
        )
