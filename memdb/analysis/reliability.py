"""Split-half reliability: how far the scores of two random halves of the models agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.format import bits, layout
from memdb.query import arrow
from memdb.query.examples import ExampleRef, require_own
from memdb.query.relations import Relations
from memdb.query.templates import template
from memdb.query.udfs import Words
from memdb.wording import count

LISTS = (10, 100, 1000)
FEWEST = 4  # models: two in each half
ROWS_AT_ONCE = 1 << 14
CONFIDENCES_AT_ONCE = 512
MAX_SPLITS = 10_000
THRESHOLDS = {"memorization": 0.25, "influence": 0.15}  # Feldman and Zhang's
Numbers = NDArray[np.float64]
Sums = dict[str, NDArray[Any]]  # of one half, by name, [train] each


@dataclass(frozen=True, slots=True)
class Splitting:
    """The number and seed of random splits, and what is compared."""

    n_splits: int = 20
    seed: int = 0
    lists: Sequence[int] = field(default=LISTS)
    threshold: float | None = None

    def require(self, n_train: int, *, given: bool) -> None:
        """Check all values; default lists may be longer than the training set, lists that are given may not.

        Raises:
            InvalidInputError: a value out of range.
        """
        if not 1 <= self.n_splits <= MAX_SPLITS:
            raise InvalidInputError(
                f"splits {self.n_splits} is not a number from 1 to {MAX_SPLITS:,}",
                hint="use e.g. splits=20",
                parameter="splits",
            )
        if not 0 <= self.seed < 2**64:
            raise InvalidInputError(
                f"seed {self.seed} is out of range", hint="use one from 0 to 2**64 - 1", parameter="seed"
            )
        if self.threshold is not None and not -1 < self.threshold < 1:
            raise InvalidInputError(
                f"threshold {self.threshold:g} is not between -1 and 1",
                hint="use e.g. threshold=0.25",
                parameter="threshold",
            )
        odd = [k for k in self.lists if k < 1 or (given and k > n_train)]
        if odd:
            raise InvalidInputError(
                f"k {odd[0]} is not a number from 1 to {n_train:,}",
                hint="a list cannot be longer than the training set",
                parameter="k",
            )


def reliability(
    relations: Relations, target: ExampleRef | None, splitting: Splitting, *, given: bool = False
) -> pa.Table:
    """Return one row per measure: its mean, minimum and maximum over the splits.

    Raises:
        NotEnoughModelsError: fewer than two models per half.
        InvalidInputError: an argument out of range.
    """
    snapshot = relations.snapshot
    splitting.require(snapshot.manifest.train.n_examples, given=given)
    if snapshot.n_models < FEWEST:
        raise NotEnoughModelsError(
            f"{snapshot.url} has {count(snapshot.n_models, 'model')}, too few for two halves",
            hint=f"train {FEWEST - snapshot.n_models} more, better 100, with `memdb train`",
        )
    if target is None or target.example_set == layout.TRAIN:
        require_own(snapshot)
    threshold = splitting.threshold
    if threshold is None:
        threshold = THRESHOLDS["memorization" if target is None else "influence"]
    parameters = {"threshold": threshold, "lists": list(dict.fromkeys(splitting.lists))}
    halves = _halves([info.model_id for _, info in snapshot.models], splitting)
    by_measure: dict[tuple[str, float | None], list[float | None]] = {}
    at_once = max(1, ROWS_AT_ONCE // len(relations.mask))  # splits per statement, whose planning is slow
    tables = _tables(relations, target, halves)
    while some := list(itertools.islice(tables, at_once)):
        joined = {"halves": pa.concat_tables(some).combine_chunks()}
        for row in relations.ask(template("reliability.sql"), parameters, tables=joined).to_pylist():
            by_measure.setdefault((row["measure"], row["at"]), []).append(row["value"])
    rows = []
    for (measure, at), all_values in by_measure.items():
        values = [value for value in all_values if value is not None]
        row = {"measure": measure, "at": at, "n_splits": len(values)}
        if values:
            row |= {"mean": math.fsum(values) / len(values), "least": min(values), "most": max(values)}
        rows.append(row)
    return arrow.of_records(rows, SCHEMA)


SCHEMA = pa.schema(
    [
        ("measure", pa.string()), ("at", pa.float64()), ("mean", pa.float64()), ("least", pa.float64()),
        ("most", pa.float64()), ("n_splits", pa.int64()),
    ]
)  # fmt: skip


def _halves(model_ids: Sequence[str], splitting: Splitting) -> NDArray[np.bool_]:
    """Return which models are in the first half, [splits, models]: a function of their ids and the seed."""
    by_id = np.argsort(np.array(model_ids), kind="stable")
    halves = np.zeros((splitting.n_splits, len(model_ids)), dtype=np.bool_)
    for split, half in enumerate(halves):
        draws = np.random.Philox(key=splitting.seed + (split << 64)).random_raw(len(model_ids))
        half[by_id[np.argsort(draws, kind="stable")[: len(model_ids) // 2]]] = True
    return halves


def _tables(relations: Relations, target: ExampleRef | None, halves: NDArray[np.bool_]) -> Any:
    """Yield the sums of both halves of each split, with one row per training example."""
    everyone = np.ones((1, halves.shape[1]), dtype=np.bool_)
    sums = _confidence_sums if relations.outcome == "confidence" else _bit_sums
    whole, *first = sums(relations, target, np.concatenate([everyone, halves]))
    ids = np.arange(len(relations.mask), dtype=np.int32)
    for split, half in enumerate(first):
        table: dict[str, Any] = {"split": np.full_like(ids, split), "train_id": ids}
        for name, values in half.items():
            table |= {f"{name}_a": values, f"{name}_b": whole[name] - values}
        yield arrow.table(table)


def _bit_sums(relations: Relations, target: ExampleRef | None, chosen: NDArray[np.bool_]) -> Any:
    """Yield the counts of each training example over each selection of models, bool [selections, models]."""
    mask = relations.mask
    right = relations.correct(layout.TRAIN if target is None else target.example_set)
    if target is not None:
        right = right[target.row]
    own = mask & right
    for flags in chosen:
        half = bits.words(bits.selection(flags.tolist())[None])[0]
        n_in, k_in, k_all = _count(mask, half), _count(own, half), _count(np.atleast_2d(right), half)
        yield {"n_in": n_in, "n_out": int(flags.sum()) - n_in, "s_in": k_in, "s_out": k_all - k_in}


def _count(rows: Words, half: Words) -> NDArray[np.int32]:
    starts = range(0, len(rows), ROWS_AT_ONCE)
    return np.concatenate([bits.count_and(rows[start : start + ROWS_AT_ONCE], half) for start in starts])


def _confidence_sums(
    relations: Relations, target: ExampleRef | None, chosen: NDArray[np.bool_]
) -> list[Sums]:
    """Return sums of p likewise, in one pass over the confidences, which are much larger than bits."""
    mask, n_train = relations.mask, len(relations.mask)
    weights = chosen.T.astype(np.float64)  # [models, selections]; all products and sums are exact
    sums = {name: np.empty((len(chosen), n_train)) for name in ("n_in", "s_in", "s_all")}
    one = None if target is None else relations.confidences[target.example_set].of_one(target.row)[None]
    for start in range(0, n_train, CONFIDENCES_AT_ONCE):
        part = slice(start, min(n_train, start + CONFIDENCES_AT_ONCE))
        ids = np.arange(part.start, part.stop, dtype=np.int32)
        p = relations.confidences[layout.TRAIN].rows(ids)[0] if one is None else one
        inside = bits.unpack(mask[part].view(np.uint8), len(weights)).T
        sums["n_in"][:, part] = (inside @ weights).T
        sums["s_in"][:, part] = ((p * inside) @ weights).T
        sums["s_all"][:, part] = (p @ weights).T
    n_models = chosen.sum(axis=1)
    return [
        {"n_in": n_in, "n_out": n - n_in, "s_in": s_in, "s_out": s_all - s_in}
        for n, n_in, s_in, s_all in zip(n_models, *sums.values(), strict=True)
    ]
