"""Suspected label errors: training examples on which models that never saw them agree on another class.

Nothing but the example itself teaches a wrong label: models without it predict what it looks like, and those
with it are right only as far as they memorize. Each held-out model has one vote for the class that it
predicts. Confident learning (Northcutt and others 2021) asks held-out probabilities of one model; here many
vote, so the share that agrees has an interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import NotFoundError
from memdb.format import bits, layout
from memdb.format.manifest import NO_PREDICTION, PREDICTION
from memdb.query import arrow, formulas
from memdb.query.examples import require_labels, require_models, require_own
from memdb.query.intervals import IntervalSpec
from memdb.query.options import require_k
from memdb.query.relations import Relations

PATH = f"{layout.TRAIN}/{PREDICTION.name}"
VOTES_AT_ONCE = 1 << 22  # of examples times classes
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Votes:
    """What held-out models predict of each training example, [train] each.

    Attributes:
        n_out: how many models were trained without it.
        k_given: how many of them predict its label.
        suggested: the class that most of them predict, other than its label; the smallest of several.
        k_suggested: how many predict that one.
    """

    n_out: NDArray[np.int64]
    k_given: NDArray[np.int64]
    suggested: NDArray[np.int64]
    k_suggested: NDArray[np.int64]


def votes_of(relations: Relations) -> Votes:
    """Count the votes.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        NotFoundError: it keeps no predictions, or no labels.
    """
    snapshot = relations.snapshot
    require_models(snapshot)
    require_own(snapshot)
    if PATH not in snapshot.manifest.arrays():
        raise NotFoundError(
            f"{snapshot.url} does not keep which class models predict",
            hint='make a store with outcomes="correct,prediction"',
            parameter="outcomes",
        )
    require_labels(snapshot, are_labelled=relations.are_labelled)
    parts = list(_counted(relations))
    return Votes(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _counted(relations: Relations) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Yield the fields of `Votes` of some examples at a time."""
    snapshot = relations.snapshot
    labels = np.minimum(relations.labels(layout.TRAIN), NO_PREDICTION)  # none can predict a larger one
    n_classes = min(max(relations.n_classes, int(labels.max()) + 1), NO_PREDICTION + 1)
    n_train, height = len(labels), snapshot.band_height(PATH)
    step = max(1, VOTES_AT_ONCE // max(n_classes, snapshot.n_models))
    for low in range(0, n_train, height):
        high = min(n_train, low + height)
        band = snapshot.outcome_values(PATH, (low, high))
        for start in range(low, high, step):
            rows = slice(start, min(high, start + step))
            inside = bits.unpack(relations.mask[rows].view(np.uint8), snapshot.n_models).T
            yield _tallied(band[start - low : rows.stop - low], ~inside, labels[rows], n_classes)


def _tallied(
    predicted: NDArray[np.uint16], outside: NDArray[np.bool_], labels: NDArray[np.int32], n_classes: int
) -> tuple[NDArray[np.int64], ...]:
    """Count the votes of models outside; predictions [example, model]."""
    at = np.arange(len(labels))
    counts = outside & (predicted < min(n_classes, NO_PREDICTION))
    cells = (at[:, None] * n_classes + predicted)[counts]
    votes = np.bincount(cells, minlength=len(labels) * n_classes).reshape(len(labels), n_classes)
    k_given = votes[at, labels]
    votes[at, labels] = -1
    suggested = votes.argmax(axis=1)
    return outside.sum(axis=1), k_given, suggested, np.maximum(votes[at, suggested], 0)


def label_errors(
    relations: Relations,
    k: int,
    spec: IntervalSpec,
    class_name: str | None = None,
    min_memorization: float | None = None,
) -> pa.Table:
    """Return the k examples whose label is most suspect.

    Listed are examples for which more held-out models predict another class than the given one. ``margin`` is
    the difference of the two shares, and ``shrunk``, which ranks, what it would be with one more model that
    votes for neither: 1 vote of 1 is less than 8 of 9. Ties go by memorization, then by ascending id. ``lo``
    and ``hi`` are of ``agreement``, the share that predicts the suggested class, chosen from ``n_ranked``
    pairs of an example and another class.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        NotFoundError: the store keeps no predictions, or no example is suspect.
        InvalidInputError: an unknown class, or k out of range.
    """
    require_k(k)
    label = None if class_name is None else relations.label_of(class_name)
    votes = votes_of(relations)
    labels, memorization = relations.labels(layout.TRAIN), _memorization(relations)
    is_listed = votes.k_suggested > votes.k_given
    if label is not None:
        is_listed &= labels == label
    if min_memorization is not None:
        is_listed &= memorization >= min_memorization
    shrunk = (votes.k_suggested - votes.k_given) / (votes.n_out + 1)
    at = np.flatnonzero(is_listed)
    at = at[np.lexsort((at, -np.nan_to_num(memorization[at], nan=-1.0), -shrunk[at]))][:k]
    if not len(at):
        raise NotFoundError(
            f"held-out models of {relations.snapshot.url} agree with every label that was asked about",
            hint="add models, or ask about other examples",
        )
    n_ranked = int((votes.n_out > 0).sum()) * (relations.n_classes - 1)
    z = formulas.interval_z(spec.of_list(len(at), max(len(at), n_ranked)), relations.snapshot.n_models)
    columns = {
        "train_id": at.astype(np.int32), "label": labels[at], **_shares(votes, at, z or 0.0),
        "shrunk": shrunk[at],
        "memorization": arrow.column(memorization[at], ~np.isnan(memorization[at])), "n_out": votes.n_out[at],
        "k_suggested": votes.k_suggested[at], "k_given": votes.k_given[at],
        "n_ranked": np.full(len(at), n_ranked),
    }  # fmt: skip
    return arrow.table(columns)


def _shares(votes: Votes, at: NDArray[np.intp], z: float) -> dict[str, NDArray[Any]]:
    """Return how large a share of the models votes for what, of the examples ``at``."""
    n_out = votes.n_out[at]
    agreement, p_given = votes.k_suggested[at] / n_out, votes.k_given[at] / n_out
    lo, hi = share_bounds(votes.k_suggested[at], n_out, z)
    return {
        "suggested_label": votes.suggested[at].astype(np.int32), "agreement": agreement, "lo": lo, "hi": hi,
        "p_given": p_given, "margin": agreement - p_given,
    }  # fmt: skip


def _memorization(relations: Relations) -> Numbers:
    found = relations.ask("SELECT memorization FROM memorization ORDER BY train_id").column(0)
    values = np.array(arrow.values_of(found), dtype=np.float64)
    values[~np.array(found.is_valid())] = np.nan
    return values


def share_bounds(k: NDArray[np.int64], n: NDArray[np.int64], z: float) -> tuple[Numbers, Numbers]:
    """Return the ends of the interval of a share, k of n (Agresti and Coull 1998)."""
    centre = (k + z * z / 2) / (n + z * z)
    half = z * np.sqrt(centre * (1 - centre) / (n + z * z))
    return np.clip(centre - half, 0, k / n), np.clip(centre + half, k / n, 1)
