"""Statistics of whole classes: how hard they are to learn, and how they influence each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.format import bits, layout
from memdb.query import arrow, statistics
from memdb.query.examples import how_to_add_models, require_examples, require_own
from memdb.query.outcomes import OUTCOMES
from memdb.query.relations import Relations
from memdb.query.templates import template
from memdb.wording import count

ROWS_AT_ONCE = 512
Numbers = NDArray[np.float64]
Labels = NDArray[np.int32]


def classes(relations: Relations, threshold: float) -> pa.Table:
    """Return one row per class, the hardest to learn first.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        InvalidInputError: a threshold outside (-1, 1).
    """
    if not -1 < threshold < 1:
        raise InvalidInputError(
            f"threshold {threshold:g} is not between -1 and 1",
            hint="use e.g. threshold=0.25",
            parameter="threshold",
        )
    _require_models(relations, 1)
    require_own(relations.snapshot)
    sql = template("classes.sql", s_all=OUTCOMES[relations.outcome].sql["s_all"])
    return relations.ask(sql, {"threshold": threshold, "n_models": relations.snapshot.n_models})


def class_influence(relations: Relations) -> pa.Table:
    """Return the mean influence of the training examples of each class on the test examples of each class.

    The mean over all pairs of a training and a test example is exactly a product of two small matrices. One
    has the mean outcome of each model on each test class; the other has, for each model and training class,
    the sum of 1 / n_in over the examples in its subset minus that of 1 / n_out over all others. Pairs without
    a score are excluded. ``null_se`` is the standard deviation of the null distribution, in which outcomes
    are randomly reassigned to models; ``q_value`` is Benjamini and Hochberg's over all pairs of classes.

    Raises:
        NotEnoughModelsError: fewer than two models.
    """
    require_examples(relations.snapshot, layout.TEST)
    _require_models(relations, 2)
    train, test = relations.examples[layout.TRAIN], relations.examples[layout.TEST]
    n_models = relations.snapshot.n_models
    n_in = bits.count(relations.mask).astype(np.float64)
    scored = (n_in > 0) & (n_in < n_models)
    labels, of_class = np.unique(train.labels[scored], return_inverse=True)
    test_labels, of_test_class = np.unique(test.labels, return_inverse=True)
    weights = _class_weights(relations, np.flatnonzero(scored), n_in[scored], of_class, len(labels))
    means = _class_means(relations, of_test_class, len(test_labels))  # [test classes, models]
    influence = weights @ means.T  # [train classes, test classes]
    spread = means.std(axis=1, ddof=1)
    null_se = np.sqrt((weights**2).sum(axis=1))[:, None] * spread
    z = np.divide(np.abs(influence), null_se, out=np.zeros_like(null_se), where=null_se > 0)
    q = statistics.q_values(np.minimum(2 * statistics.normal_tail(z.ravel()), 1.0))
    sizes, test_sizes = np.bincount(of_class), np.bincount(of_test_class)
    rows, cols = (axis.ravel() for axis in np.indices(influence.shape))
    of = {"train": (labels[rows], sizes[rows]), "test": (test_labels[cols], test_sizes[cols])}
    names = train.class_names
    known = None if train.are_labelled else np.zeros(len(rows), dtype=np.bool_)
    return arrow.table(
        {f"{side}_label": found.astype(np.int32) for side, (found, _) in of.items()}
        | {f"{side}_class": _names(names, found) for side, (found, _) in of.items()}
        | {"same_class": arrow.column(of["train"][0] == of["test"][0], known)}
        | {"influence": influence.ravel(), "null_se": null_se.ravel(), "q_value": q}
        | {f"n_{side}": counted.astype(np.int64) for side, (_, counted) in of.items()}
    )


def _class_weights(
    relations: Relations, rows: NDArray[np.int64], n_in: Numbers, of_class: NDArray[Any], n_classes: int
) -> Numbers:
    """Return the weight of each model's outcome in the mean score of each class, [classes, models]."""
    n_models = relations.snapshot.n_models
    when_in, when_out = 1 / n_in, 1 / (n_models - n_in)
    sums = np.zeros((n_classes, n_models))
    for label, members in _by_class(of_class, n_classes):
        inside = bits.unpack(relations.mask[rows[members]].view(np.uint8), n_models).T
        sums[label] += (when_in[members] + when_out[members]) @ inside - when_out[members].sum()
    weights: Numbers = sums / np.bincount(of_class, minlength=n_classes)[:, None]
    return weights


def _class_means(relations: Relations, of_class: NDArray[Any], n_classes: int) -> Numbers:
    """Return the mean outcome of each model on each class of test examples, [classes, models]."""
    n_models = relations.snapshot.n_models
    sums = np.zeros((n_classes, n_models))
    for label, members in _by_class(of_class, n_classes):
        if relations.outcome == "confidence":
            sums[label] += relations.confidences[layout.TEST].rows(members.astype(np.int32))[0].sum(axis=0)
        else:
            right = bits.unpack(relations.correct(layout.TEST)[members].view(np.uint8), n_models)
            sums[label] += right.sum(axis=1)
    counted: Numbers = sums / np.bincount(of_class, minlength=n_classes)[:, None]
    return counted


def _by_class(of_class: NDArray[Any], n_classes: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each class with the rows of its members, at most `ROWS_AT_ONCE` at a time."""
    by_class = np.argsort(of_class, kind="stable")
    starts = np.searchsorted(of_class[by_class], np.arange(n_classes + 1))
    for label in range(n_classes):
        members = by_class[starts[label] : starts[label + 1]]
        for first in range(0, len(members), ROWS_AT_ONCE):
            yield label, members[first : first + ROWS_AT_ONCE]


def _names(names: tuple[str, ...], labels: Labels) -> pa.Array:
    return arrow.text([names[label] if label < len(names) else None for label in labels.tolist()])


def _require_models(relations: Relations, fewest: int) -> None:
    n_models = relations.snapshot.n_models
    if n_models < fewest:
        raise NotEnoughModelsError(
            f"{relations.snapshot.url} has {count(n_models, 'model')}",
            hint=how_to_add_models(relations.snapshot),
        )
