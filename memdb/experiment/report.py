"""What a removal experiment found: a row a threshold and control, and the test examples that lost most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.experiment.run import Progress
from memdb.experiment.sequences import Mean, accuracy_of, fewest, mean_of, values_to_tell
from memdb.format import bits, layout
from memdb.format.experiment import EQUAL, PICTURES, Arm, Experiment, Pairs
from memdb.query.intervals import IntervalSpec, require_level
from memdb.query.questions import counts
from memdb.query.relations import Relations
from memdb.query.templates import template
from memdb.store import Snapshot
from memdb.wording import count, verb

INFLUENCERS = 3
SUFFIX = "without_near_duplicates"
A_MATCH = 0.1  # by which the held-out accuracies of a control and of what it matches may differ
TOLD_BY = {None: "influence", EQUAL: "influence and equal content", PICTURES: "influence and pictures"}
LOSSES = """
SELECT test_id, label, k_control / n_control AS p_control, k_memorized / n_memorized AS p_memorized,
       score(k_control, n_control, k_memorized, n_memorized) AS loss,
       score_lo(k_control, n_control, k_memorized, n_memorized, z) AS lo,
       score_hi(k_control, n_control, k_memorized, n_memorized, z) AS hi, near_duplicate
FROM (SELECT *, interval_z('simultaneous', $alpha, $fixed_z, n_control + n_memorized, 1,
                           count(*) OVER ()) AS z
      FROM outcomes)
WHERE loss > 0
ORDER BY loss DESC, test_id LIMIT $k
"""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """One arm of memorized examples beside one control."""

    arm: Arm
    control: Arm
    accuracy: Mean
    control_accuracy: Mean
    difference: Mean  # of the control minus the memorized
    difference_without: Mean  # the same, without test examples that have a near-duplicate among the removed
    n_near_duplicates: int
    n_look_alikes: int  # of these, the test examples that are alike in content
    n_more: int | None
    class_overlap: float | None  # of what both remove: the share that has the same classes

    def row(self, n_train: int) -> dict[str, Any]:
        """Return it as a row."""
        means = {
            "accuracy": self.accuracy,
            "control_accuracy": self.control_accuracy,
            "difference": self.difference,
            f"difference_{SUFFIX}": self.difference_without,
        }
        n_removed = (self.control if self.control.control == "added" else self.arm).n_removed
        return {
            "rule": self.arm.rule,
            "threshold": self.control.threshold,
            "control": self.control.control,
            "n_removed": n_removed,
            "fraction_left": 1 - n_removed / n_train,
            "n_repetitions": self.difference.n,
            "held_out": self.arm.held_out,
            "control_held_out": self.control.held_out,
            "class_overlap": self.class_overlap,
            **{f"{name}{end}": value for name, mean in means.items() for end, value in _ends(mean)},
            "n_near_duplicates": self.n_near_duplicates,
            "n_look_alikes": self.n_look_alikes,
            "separates": self.difference.excludes_zero,
            "n_more": self.n_more,
        }


def _ends(mean: Mean) -> Iterator[tuple[str, float | None]]:
    for end, value in (("", mean.value), ("_lo", mean.lo), ("_hi", mean.hi)):
        yield end, None if math.isnan(value) else value


class Findings:
    """The state of an experiment; ``rules`` are those asked for, of which some may remove nothing."""

    def __init__(self, snapshot: Snapshot, level: float = 0.95, rules: Sequence[str] = ()) -> None:
        experiment = snapshot.manifest.experiment
        assert experiment is not None  # noqa: S101 - `run.opened` refuses all others
        self.snapshot, self.level = snapshot, require_level(level)
        self.experiment: Experiment = experiment
        self._progress = Progress.of(snapshot)
        self._rules = tuple(dict.fromkeys([*(arm.rule for arm in experiment.arms), *rules]))
        self._n_train = snapshot.manifest.train.n_examples
        self._n_test = snapshot.manifest.set_named(layout.TEST).n_examples

    @cached_property
    def _correct(self) -> NDArray[np.bool_]:
        """Which models are right on which test examples, bool [models, test]."""
        return bits.unpack(self.snapshot.outcome_bits(f"{layout.TEST}/correct"), self.snapshot.n_models)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every control beside the memorized examples of its rule and threshold."""
        arms = self.experiment.arms
        memorized = {
            (arm.rule, arm.threshold): at for at, arm in enumerate(arms) if arm.control == "memorized"
        }
        lowest = {rule: min(t for r, t in memorized if r == rule) for rule, _ in memorized}
        comparisons = []
        for at, arm in enumerate(arms):
            if arm.control in {"random", "matched"}:
                comparisons.append(self._compared(memorized[arm.rule, arm.threshold], at))
            elif arm.control == "added":
                comparisons.append(self._compared(memorized[arm.rule, lowest[arm.rule]], at))
        return comparisons

    def _compared(self, memorized: int, control: int) -> Comparison:
        arm = self.experiment.arms[memorized]
        alike = self._with_twins(arm, self.experiment.look_alikes)
        twins = alike | self._with_twins(arm, self.experiment.near_duplicates)
        ours, theirs = (self._progress.rows[at] for at in (memorized, control))
        both = sorted(ours.keys() & theirs.keys())
        pairs = [self._correct[[rows[r] for r in both]] if both else None for rows in (ours, theirs)]
        every = np.ones(self._n_test, dtype=np.bool_)
        difference, without = (_difference(pairs, kept, self.level) for kept in (every, ~twins))
        needed = values_to_tell(difference, self.level)
        return Comparison(
            arm,
            self.experiment.arms[control],
            self._mean(ours.values()),
            self._mean(theirs.values()),
            difference,
            without,
            int(twins.sum()),
            int(alike.sum()),
            None if needed is None else max(0, needed - difference.n),
            self._class_overlap(arm, self.experiment.arms[control]),
        )

    def _class_overlap(self, arm: Arm, control: Arm) -> float | None:
        """Return the share of what an arm removes that its control removes as many of the same class of.

        Of random examples, it is that of the classes' shares of the training set.
        """
        if arm.removed is None or control.control == "added" or not arm.n_removed:
            return None
        classes = np.unique(self.snapshot.examples(layout.TRAIN).labels, return_inverse=True)[1]
        others = classes if control.removed is None else classes[control.removed]
        shares = [
            np.bincount(of, minlength=classes.max() + 1) / len(of) for of in (classes[arm.removed], others)
        ]
        return float(np.minimum(*shares).sum())

    def _mean(self, rows: Any) -> Mean:
        return accuracy_of(
            self._correct[list(rows)].mean(axis=1) if rows else [], self.level, step=1 / self._n_test
        )

    def _with_twins(self, arm: Arm, of: Pairs) -> NDArray[np.bool_]:
        """Return which test examples have a twin among what an arm removes, bool [test], by these pairs."""
        twins = np.zeros(self._n_test, dtype=np.bool_)
        pairs = np.array(of, dtype=np.int64).reshape(-1, 2)
        if arm.removed is not None:
            twins[pairs[np.isin(pairs[:, 0], arm.removed), 1]] = True
        return twins

    @property
    def all_kept(self) -> Mean:
        """The accuracy of models from whose training set nothing was removed."""
        return self._mean(self._progress.rows[0].values())

    def rows(self) -> pa.Table:
        """Return one row for each threshold and control."""
        rows = [item.row(self._n_train) for item in self.comparisons]
        integers = {"n_removed", "n_repetitions", "n_near_duplicates", "n_look_alikes", "n_more"}
        kinds = {"rule": pa.string(), "control": pa.string(), "separates": pa.bool_()}
        names = list(rows[0]) if rows else []
        kind = {name: kinds.get(name, pa.int64() if name in integers else pa.float64()) for name in names}
        return pa.table({name: pa.array([row[name] for row in rows], kind[name]) for name in names})

    def facts(self) -> dict[str, Any]:
        """Return what is true of all rows."""
        kept, source = self.all_kept, self.experiment.source
        return {
            "experiment": self.snapshot.url,
            "n_models": self.snapshot.n_models,
            "models_sha256": self.snapshot.models_sha256,
            "interval": "anytime",
            "level": self.level,
            "fraction": self.experiment.fraction,
            **{f"accuracy_all{end}": value for end, value in _ends(kept)},
            "chosen_by": {
                "store_id": source.store_id,
                "n_models": source.n_models,
                "models_sha256": source.models_sha256,
            },
            "judges_are_disjoint": True,
            "in_words": list(self.sentences()),
        }

    def sentences(self) -> Iterator[str]:
        """Say of each row what it shows."""
        for item in self.comparisons:
            yield _sentence(item, self.level) + _without_near_duplicates(item)
        yield from filter(None, map(_match, self.comparisons))
        yield from self._missing_arms()
        known = TOLD_BY[self.experiment.content]
        if not any(item.n_near_duplicates for item in self.comparisons):
            yield f"No test example has a near-duplicate among the removed, as told by {known}."
        if self.experiment.content != PICTURES:
            yield f"Near-duplicates are told by {known} alone: no pictures were compared."
        yield (
            f"The {count(self.experiment.source.n_models, 'model')} that chose what to remove "
            f"{verb(self.experiment.source.n_models)} in another store: "
            f"none of the {self.snapshot.n_models:,} that judge is among them."
        )

    def _missing_arms(self) -> Iterator[str]:
        """Say which arms are missing, and why."""
        arms = self.experiment.arms
        there = {(arm.control, arm.rule, arm.threshold): arm for arm in arms}
        labels, classes = np.unique(self.snapshot.examples(layout.TRAIN).labels, return_inverse=True)
        sizes = np.bincount(classes)
        for rule in self._rules:
            for threshold in sorted({arm.threshold for arm in arms}):
                arm = there.get(("memorized", rule, threshold))
                if arm is None or arm.removed is None:
                    yield f"Nothing is memorized at {threshold:g} or more ({rule})."
                    continue
                removed = np.bincount(classes[arm.removed], minlength=len(sizes))
                most = int(np.argmax(removed / sizes))
                if ("matched", rule, threshold) not in there and 2 * removed[most] >= sizes[most]:
                    yield (
                        f"Nothing matches the {arm.n_removed:,} memorized at {threshold:g} or more ({rule}): "
                        f"they are {removed[most]:,} of {sizes[most]:,} examples of class {labels[most]}."
                    )

    def losses(self, k: int, relations: Relations | None = None) -> pa.Table:
        """Return the test examples that lose most to the lowest threshold, beside as many removed at random.

        The intervals hold for all test examples at once. With the relations of the store that chose,
        ``influencers`` are the removed examples of the largest influence on each, and ``influences`` these.
        """
        chosen = next((c for c in self.comparisons if c.control.control == "random"), None)
        if chosen is None or not chosen.difference.n:
            return pa.table({})
        arms = self.experiment.arms
        rows = [self._progress.rows[arms.index(arm)] for arm in (chosen.control, chosen.arm)]  # by identity
        right = [self._correct[list(of.values())] for of in rows]
        labels = self.snapshot.examples(layout.TEST).labels
        near = (*self.experiment.near_duplicates, *self.experiment.look_alikes)
        outcomes = {
            "test_id": np.arange(len(labels)),
            "label": labels,
            "near_duplicate": self._with_twins(chosen.arm, near),
            **{f"k_{n}": r.sum(axis=0) for n, r in zip(("control", "memorized"), right, strict=True)},
            **{
                f"n_{n}": np.full(len(labels), len(r))
                for n, r in zip(("control", "memorized"), right, strict=True)
            },
        }
        with duckdb.connect() as connection:
            connection.execute(template("statistics.sql"))
            connection.register("outcomes", pa.table(outcomes))
            asked = IntervalSpec("simultaneous", self.level).parameters()
            values = {"alpha": asked["alpha"], "fixed_z": asked["fixed_z"], "k": k}
            losses = connection.sql(LOSSES, params=values).to_arrow_table()
        if relations is None or chosen.arm.removed is None:
            return losses
        names = [
            _influencers(relations, test_id, chosen.arm.removed) for test_id in losses["test_id"].to_pylist()
        ]
        for column, kind in (("influencers", pa.int64()), ("influences", pa.float64())):
            listed = [list(of if column == "influencers" else of.values()) for of in names]
            losses = losses.append_column(column, pa.array(listed, pa.list_(kind)))
        return losses


def _difference(pairs: Sequence[NDArray[np.bool_] | None], kept: NDArray[np.bool_], level: float) -> Mean:
    """Return the mean over repetitions of the control's accuracy minus the other's, on some test examples."""
    ours, theirs = pairs
    if ours is None or theirs is None or not kept.any():
        return mean_of([], level)
    n_kept = int(kept.sum())
    more = np.count_nonzero(theirs[:, kept], axis=1) - np.count_nonzero(ours[:, kept], axis=1)
    return mean_of(more / n_kept, level, step=1 / n_kept)  # of counts: what is equal differs by 0


def _influencers(relations: Relations, test_id: int, removed: NDArray[np.int32]) -> dict[int, float]:
    """Return the removed examples with the largest influence on a test example, and their influence."""
    of = {
        name: values[removed].astype(np.float64)
        for name, values in counts(relations, {"test_id": test_id}).items()
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        influence = np.nan_to_num(of["k_in"] / of["n_in"] - of["k_out"] / of["n_out"], nan=-1.0)
    first = np.argsort(-influence, kind="stable")[:INFLUENCERS]
    return {int(removed[at]): float(influence[at]) for at in first if influence[at] > 0}


def _sentence(item: Comparison, level: float) -> str:
    difference, arm, control = item.difference, item.arm, item.control
    what = f"Removing the {arm.n_removed:,} memorized at {arm.threshold:g} or more ({arm.rule})"
    if control.control == "added":
        what = f"Adding back the slice memorized from {control.threshold:g} on ({control.rule})"
    if difference.n == 0:
        return f"{what}: no repetition of this and of {control.control} yet."
    effect = f"{what} {_effect(item)}"
    if math.isnan(difference.lo):
        few = fewest(level) - difference.n
        return f"{effect}: too few repetitions for an interval, {few} more {verb(few, 'gives', 'give')} one."
    interval = f"{100 * difference.lo:+.2f} to {100 * difference.hi:+.2f}"
    if difference.excludes_zero:
        return f"{effect} ({interval}): it separates."
    if item.n_more is None:
        return f"{effect} ({interval}): it does not separate, nor would it with a million repetitions."
    more = f"about {count(item.n_more, 'more repetition')} would tell"
    return f"{effect} ({interval}): it does not separate; at this difference and spread {more}."


def _without_near_duplicates(item: Comparison) -> str:
    """Say what is left of a difference without the test examples that have a twin among the removed."""
    n, left = item.n_near_duplicates, item.difference_without
    if not n or not left.n:
        return ""
    have = verb(n, "has", "have")
    what = f" Without the {count(n, 'test example')} that {have} a near-duplicate among the removed: "
    points = f"{100 * left.value:+.2f} points"
    if math.isnan(left.lo):
        return f"{what}{points}."
    separates = "separates" if left.excludes_zero else "does not separate"
    return f"{what}{points} ({100 * left.lo:+.2f} to {100 * left.hi:+.2f}), which {separates}."


def _match(item: Comparison) -> str | None:
    """Say how well a matched control matches."""
    ours, theirs = item.arm.held_out, item.control.held_out
    if item.control.control != "matched" or ours is None or theirs is None or item.class_overlap is None:
        return None
    what = f"the {item.arm.n_removed:,} memorized at {item.arm.threshold:g} or more ({item.arm.rule})"
    return (
        f"Held out, {what} are classified correctly {100 * ours:.1f} % of the time, and the matched "
        f"{100 * theirs:.1f} %; {100 * item.class_overlap:.0f} % of their classes agree."
    )


def _effect(item: Comparison) -> str:
    points = 100 * item.difference.value
    if item.control.control == "added":
        return f"to the easy ones brings {points:+.2f} points of test accuracy"
    others = "at random"
    if item.control.control == "matched":
        ours, theirs = item.arm.held_out, item.control.held_out
        is_match = ours is None or theirs is None or abs(theirs - ours) <= A_MATCH
        others = (
            "matched by class and held-out accuracy"
            if is_match
            else "of the same classes, the nearest to them in held-out accuracy"
        )
    if not round(points, 2):
        return f"costs the same test accuracy, to 0.01 points, as removing as many {others}"
    more = "more" if points > 0 else "less"
    return f"costs {abs(points):.2f} points of test accuracy {more} than as many {others}"
