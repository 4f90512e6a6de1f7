"""What one can ask about the answers: how many models they take, how they settled, whether stores agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memdb.analysis import classes, compare, convergence, plan, reliability
from memdb.analysis import lds as attributions
from memdb.analysis import membership as attacks
from memdb.analysis.plan import Goal
from memdb.analysis.reliability import LISTS, Splitting
from memdb.format import layout
from memdb.query.intervals import IntervalChoice, require_level
from memdb.query.results import Results
from memdb.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from duckdb import DuckDBPyRelation


class Assessor(Reader):
    """A store, what one can ask of it (see `Reader`), and what one can ask about the answers."""

    def plan(  # noqa: PLR0913 - a goal, a score by name, and which intervals
        self,
        half_width: float = 0.05,
        *,
        kind: str = "memorization",
        train_id: int | None = None,
        train_key: str | None = None,
        test_id: int | None = None,
        test_key: str | None = None,
        target_id: int | None = None,
        target_key: str | None = None,
        settle: float = 0.9,
        threshold: float = 0.25,
        k: int = 20,
        n_ranked: int | None = None,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "anytime",
    ) -> DuckDBPyRelation:
        """Return how many models goals take, how many more than there are, and for how long: one row a goal.

        ``worst_case``: the half-width for any score. From 50 models on, at the rates that the store has:
        ``median`` and ``percentile_95``, the same for half and for 95 % of the scores of ``kind``, and
        ``settled``, until the share ``settle`` of the examples above ``threshold`` has its interval above
        it. With a score named: ``named_half_width``, and ``named_from_zero``, until its interval leaves
        0 out. NULL where a thousand million models would not do.

        ``k`` and ``n_ranked`` (the training examples where not given) are those of ``selected`` and
        ``simultaneous`` intervals. `plan_without_store` has the worst case alone.

        Raises:
            InvalidInput: a value that cannot be.
            NotEnoughModels: a score is named, and fewer than 50 models know its rates.
        """
        goal = Goal(half_width, kind, settle, threshold, k, n_ranked)
        goal.require()
        ids = (train_id, train_key, test_id, test_key, target_id, target_key)
        named = None
        if any(value is not None for value in ids):
            named = self.pair_named(
                train_id=train_id, train_key=train_key, test_id=test_id, test_key=test_key,
                target_id=target_id, target_key=target_key,
            )  # fmt: skip
        choice = IntervalChoice(interval, level)
        return self._present(plan.plan(self.relations(outcome), goal, choice, named))

    def convergence(  # noqa: PLR0913 - six ways to name two examples
        self,
        train_id: int | None = None,
        *,
        train_key: str | None = None,
        test_id: int | None = None,
        test_key: str | None = None,
        target_id: int | None = None,
        target_key: str | None = None,
        looks: Sequence[int] | None = None,
        outcome: str = "correct",
        level: float = 0.95,
    ) -> DuckDBPyRelation:
        """Return one score after the first ``n_models`` models in order of commit: one row a look.

        ``looks`` are numbers of models: 10, 20, 50, 100, ... and all of them where not given. Each row has
        the fixed and the anytime interval.

        Raises:
            NotEnoughModels: the store has no models yet.
            InvalidInput: examples not named once each, or a value that cannot be.
            NotFound: no example has that key.
        """
        train, target = self.pair_named(
            train_id=train_id, train_key=train_key, test_id=test_id, test_key=test_key,
            target_id=target_id, target_key=target_key,
        )  # fmt: skip
        return self._present(convergence.convergence(self.relations(outcome), train, target, level, looks))

    def reliability(
        self,
        *,
        test_id: int | None = None,
        k: Sequence[int] | None = None,
        splits: int = 20,
        seed: int = 0,
        threshold: float | None = None,
        outcome: str = "correct",
    ) -> DuckDBPyRelation:
        """Return how far two random halves of the models agree on memorization, or on influence.

        One row a measure, with its mean, least and most over the splits: ``correlation`` of the scores of
        two halves; ``spearman_brown``, what it foretells for two whole stores of this size; ``confirmed``,
        the share of the examples at or above the threshold (0.25, or 0.15 for influence) in one half that
        are so in the other; ``top_overlap`` (Jaccard) of the first ``k`` of both. The same models and the
        same ``seed`` give the same answer.

        Raises:
            NotEnoughModels: fewer than four models.
            InvalidInput: a value that cannot be.
        """
        relations = self.relations(outcome)
        target = None
        if test_id is not None:
            target = "test_id", relations.row_of(layout.TEST, test_id, None, "--test-id")
        splitting = Splitting(splits, seed, tuple(k or LISTS), threshold)
        return self._present(reliability.reliability(relations, target, splitting, given=k is not None))

    def classes(self, *, threshold: float = 0.25, outcome: str = "correct") -> DuckDBPyRelation:
        """Return one row a class, the hardest to learn first.

        ``consistency`` is the mean accuracy on training examples of the models that had not seen them,
        ``train_rate`` that of those that had, ``memorization`` the mean score, ``n_memorized`` the examples
        at or above the threshold, ``test_rate`` the accuracy on test examples.

        Raises:
            NotEnoughModels: the store has no models yet.
            InvalidInput: a value that cannot be.
        """
        return self._present(classes.classes(self.relations(outcome), threshold))

    def class_influence(self, *, outcome: str = "correct") -> DuckDBPyRelation:
        """Return the mean influence of each class's training examples on each class's test examples.

        ``null_se`` is the standard deviation of the mean if no example had any effect, ``q_value`` the false
        discovery rate over all pairs of classes.

        Raises:
            NotEnoughModels: fewer than two models.
        """
        return self._present(classes.class_influence(self.relations(outcome)))

    def compare(  # noqa: PLR0913 - the other store, what of them, and the list's options
        self,
        other: Reader,
        *,
        test_id: int | None = None,
        k: int = 20,
        threshold: float | None = None,
        outcome: str = "correct",
        level: float = 0.95,
        interval: str = "selected",
    ) -> DuckDBPyRelation:
        """Return the k examples on which two stores of one data set differ most, and how far they agree.

        Scores are memorization or, with ``test_id``, the influence on a test example. ``difference`` is this
        store's less the other's, ``lo`` and ``hi`` its interval. The same in every row: ``jaccard`` of the
        examples at or above the threshold (0.25, or 0.15 for influence), ``top_overlap`` (Jaccard) of the
        first k of both, ``spearman``, ``mean_difference``, and what the stores have in common. Counts are
        never added up.

        Raises:
            Mismatch: the data sets are not the same.
            NotEnoughModels: one of them has no models.
            InvalidInput: a value that cannot be.
        """
        relations = self.asked(outcome)
        if test_id is not None:
            relations.row_of(layout.TEST, test_id, None, "--test-id")
        choice = IntervalChoice(interval, level)
        others = other.asked(outcome)
        return self._present(compare.compare(relations, others, test_id, k, threshold, choice))

    def membership(
        self,
        *,
        variant: str = "online",
        variance: str = "auto",
        observe: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> DuckDBPyRelation:
        """Return how well the likelihood-ratio attack tells whose subset had which training example.

        One row an example, the most exposed first, with its AUC over models; in every row what the attack on
        each model in turn comes to. ``variant`` is ``online`` or ``offline``, ``variance`` ``example``,
        ``pooled`` over examples, or ``auto``: pooled with few models.

        Raises:
            NotFound: the store keeps no logit confidences.
            NotEnoughModels: fewer than eight models.
            InvalidInput: a value that cannot be.
        """
        attack = attacks.Attack(variant, variance)
        return self._present(attacks.membership(self.relations(), attack, observe))

    def lds(  # noqa: PLR0913 - whose scores, of which models, and the bootstrap
        self,
        scores: attributions.Attribution,
        *,
        outcome: str | None = None,
        model_ids: Sequence[str] | None = None,
        resamples: int = 200,
        seed: int = 0,
        level: float = 0.95,
        observe: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> DuckDBPyRelation:
        """Return the linear datamodeling score of attribution scores [test, train]: one row a test example.

        ``scores`` is a `memdb.interop.arrays.ArrayFile`, or anything with ``shape``, ``rows(start, stop)``
        and ``place``. Use models that the scores were not computed from: ``model_ids`` names them.
        ``outcome`` is ``logit_confidence``, ``margin`` or ``correct``; where not given, the first of these
        that the store keeps.

        Raises:
            InvalidInput: scores of another shape or with numbers that are none, or a value that cannot be.
            NotEnoughModels: fewer than five models.
        """
        bootstrap = attributions.Bootstrap(resamples, seed, require_level(level))
        relations = self.relations()
        return self._present(attributions.lds(relations, scores, outcome, model_ids, bootstrap, observe))


def plan_without_store(
    subset_fraction: float,
    half_width: float = 0.05,
    *,
    k: int = 20,
    n_ranked: int | None = None,
    level: float = 0.95,
    interval: str = "anytime",
) -> DuckDBPyRelation:
    """Return the worst case of `Assessor.plan` for a store that is not there yet.

    Raises:
        InvalidInput: a value that cannot be, or ``n_ranked`` lacks where the interval depends on it.
    """
    goal = Goal(half_width, n_shown=k, n_ranked=n_ranked)
    return Results().present(plan.worst_case(goal, subset_fraction, IntervalChoice(interval, level)))
