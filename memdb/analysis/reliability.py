"""Split-half reliability: what half of the models say, against what the other half says."""

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
from memdb.query.examples import ExampleRef
from memdb.query.relations import Relations
from memdb.query.templates import template
from memdb.query.udfs import Words

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
    """How often models are split at random, from which seed, and what is compared."""

    n_splits: int = 20
    seed: int = 0
    lists: Sequence[int] = field(default=LISTS)
    threshold: float | None = None

    def require(self, n_train: int, *, given: bool) -> None:
        """Refuse what cannot be; lists that nobody asked for may be longer than the training set.

        Raises:
            InvalidInputError: names the value and what it may be.
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
    """Return one row a measure: its mean over the splits, and the least and most of them.

    Raises:
        NotEnoughModelsError: fewer than two models a half.
        InvalidInputError: a value that cannot be.
    """
    snapshot = relations.snapshot
    splitting.require(snapshot.manifest.train.n_examples, given=given)
    if snapshot.n_models < FEWEST:
        raise NotEnoughModelsError(
            f"{snapshot.url} has {snapshot.n_models} models, too few for two halves",
            hint=f"train {FEWEST - snapshot.n_models} more, better 100, with `memdb train`",
        )
    threshold = splitting.threshold
    if threshold is None:
        threshold = THRESHOLDS["memorization" if target is None else "influence"]
    parameters = {"threshold": threshold, "lists": list(dict.fromkeys(splitting.lists))}
    halves = _halves([info.model_id for _, info in snapshot.models], splitting)
    found: dict[tuple[str, float | None], list[float | None]] = {}
    at_once = max(1, ROWS_AT_ONCE // len(relations.mask))  # splits: planning a statement takes long
    tables = _tables(relations, target, halves)
    while part := list(itertools.islice(tables, at_once)):
        read = {"halves": pa.concat_tables(part).combine_chunks()}
        for row in relations.ask(template("reliability.sql"), parameters, tables=read).to_pylist():
            found.setdefault((row["measure"], row["at"]), []).append(row["value"])
    rows = []
    for (measure, at), given_values in found.items():
        values = [value for value in given_values if value is not None]
        row = {"measure": measure, "at": at, "n_splits": len(values)}
        if values:
            row |= {"mean": math.fsum(values) / len(values), "least": min(values), "most": max(values)}
        rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMA)


SCHEMA = pa.schema(
    [
        ("measure", pa.string()), ("at", pa.float64()), ("mean", pa.float64()), ("least", pa.float64()),
        ("most", pa.float64()), ("n_splits", pa.int64()),
    ]
)  # fmt: skip


def _halves(model_ids: Sequence[str], splitting: Splitting) -> NDArray[np.bool_]:
    """Return which models stand in the first half, [splits, models]: a function of the models' ids."""
    by_id = np.argsort(np.array(model_ids), kind="stable")
    halves = np.zeros((splitting.n_splits, len(model_ids)), dtype=np.bool_)
    for split, half in enumerate(halves):
        draws = np.random.Philox(key=splitting.seed + (split << 64)).random_raw(len(model_ids))
        half[by_id[np.argsort(draws, kind="stable")[: len(model_ids) // 2]]] = True
    return halves


def _tables(relations: Relations, target: ExampleRef | None, halves: NDArray[np.bool_]) -> Any:
    """Yield for each split the sums of both halves, a row a training example."""
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
    """Yield, for each choice of models, how many had each example and how many of those were right."""
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
    """Return the same for sums of p: one pass over the confidences, which are many more bytes."""
    mask, n_train = relations.mask, len(relations.mask)
    weights = chosen.T.astype(np.float64)  # [models, choices]; every product and sum is exact
    found = {name: np.empty((len(chosen), n_train)) for name in ("n_in", "s_in", "s_all")}
    one = None if target is None else relations.confidences[target.example_set].of_one(target.row)[None]
    for start in range(0, n_train, CONFIDENCES_AT_ONCE):
        part = slice(start, min(n_train, start + CONFIDENCES_AT_ONCE))
        ids = np.arange(part.start, part.stop, dtype=np.int32)
        p = relations.confidences[layout.TRAIN].rows(ids)[0] if one is None else one
        inside = bits.unpack(mask[part].view(np.uint8), len(weights)).T
        found["n_in"][:, part] = (inside @ weights).T
        found["s_in"][:, part] = ((p * inside) @ weights).T
        found["s_all"][:, part] = (p @ weights).T
    n_models = chosen.sum(axis=1)
    return [
        {"n_in": n_in, "n_out": n - n_in, "s_in": s_in, "s_out": s_all - s_in}
        for n, n_in, s_in, s_all in zip(n_models, *found.values(), strict=True)
    ]
