"""All pairs by their calibrated predictions, in the tiles of `query.pairs`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from memdb.query import arrow
from memdb.query.informed.listed import predictions, with_predictions
from memdb.query.informed.products import CPU, Products
from memdb.query.intervals import require_level
from memdb.query.options import PairOptions
from memdb.query.pairs import scores
from memdb.query.pairs.kernel_informed import InformedKernel
from memdb.query.pairs.search import PairSearch
from memdb.query.pairs.types import PairBlock

if TYPE_CHECKING:
    from memdb.query.informed.predictor import Predictor
    from memdb.query.informed.relations import InformedRelations

THREADS_ON_GPU = 4


def informed_pairs(relations: InformedRelations, options: PairOptions) -> pa.Table:
    """Return the pairs whose predictions the options select: by test id, then from the strongest.

    Where there is no calibration, these are the raw pairs, with raw influences as predictions.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        InvalidInputError: invalid options, or more pairs than fit in memory.
    """
    predictor = relations.predictor
    if predictor.why_raw is not None:
        return with_raw_as_informed(scores.pairs(relations.raw, options))
    search = informed_search(relations, options)
    blocks = scores.collected(search, options)
    level = require_level(options.get("level", 0.95))
    return predicted(search, predictor, blocks, level)


def with_raw_as_informed(raw: pa.Table) -> pa.Table:
    """Return raw influences with a column of predictions that are the same."""
    return raw.add_column(raw.column_names.index("influence") + 1, "informed", raw.column("influence"))


def informed_search(relations: InformedRelations, options: PairOptions) -> PairSearch:
    """Return the search that the options ask for, by predictions."""
    predictor = relations.predictor
    assert predictor.calibration is not None  # noqa: S101 - `why_raw` was asked
    products, threads = _products_on(options.get("device", "auto"))
    kernel = partial(
        InformedKernel, prior=predictor.prior, calibration=predictor.calibration, products=products
    )
    return PairSearch(
        scores.pair_bits(relations),
        scores.choice_of(options, relations.snapshot),
        kernel=kernel,
        threads=threads,
        is_final=True,
    )


def predicted(search: PairSearch, predictor: Predictor, blocks: list[PairBlock], level: float) -> pa.Table:
    """Return the pairs of some blocks with their predictions and intervals, in order."""
    table = scores.Evidence(search.bits).table(blocks, {"z": 1.0})
    names = ("train_id", "test_id", "n_in", "n_out", "k_in", "k_out")
    columns = {name: arrow.values_of(table.column(name)) for name in names}
    given = predictor.of_pairs(columns["train_id"], columns["test_id"])
    _, posteriors = predictions(columns, given, search.bits.n_models)
    return with_predictions(table, posteriors, level)


def _products_on(device: str) -> tuple[Products, int | None]:
    """Return the products of sketches on a device, and the number of threads to use (None: one per core)."""
    named = scores.device_of(device)
    if named == "cpu":
        return CPU, None
    from memdb.query.informed.products_torch import TorchProducts  # noqa: PLC0415 - imports torch

    return TorchProducts(named), THREADS_ON_GPU
