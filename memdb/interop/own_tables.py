"""Tables that memdb writes and that hold no scores of single examples: what each is, by columns of its own.

Some have columns that scores have, too: classes have a memorization, which is a mean.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

SCORES = "scores of examples come in: `memdb export memorization.csv`, or `memdb pairs -o pairs.csv`"
MODELS = "models come in: `memdb export runs.npz --what models`, or `memdb merge` from store to store"


class OwnTable(NamedTuple):
    """A kind of table."""

    columns: frozenset[str]
    what: str
    hint: str = SCORES


TABLES = (
    OwnTable(frozenset({"store_id", "subset_scheme"}), "what `memdb info` says of a store", MODELS),
    OwnTable(frozenset({"model_id", "subset_size"}), "a list of models, without their outcomes", MODELS),
    OwnTable(frozenset({"id", "n_correct"}), "a list of examples and of how often models are right on them"),
    OwnTable(frozenset({"goal", "n_models_needed"}), "what `memdb plan` says of models that are missing"),
    OwnTable(
        frozenset({"fixed_lo", "anytime_lo"}),
        "the score of one example after more and more models, from `memdb convergence`",
    ),
    OwnTable(frozenset({"measure", "n_splits"}), "what `memdb reliability` says of the models"),
    OwnTable(frozenset({"difficulty", "consistency"}), "the classes from `memdb classes`, a row each"),
    OwnTable(
        frozenset({"train_class", "test_class", "null_se"}),
        "the influence of classes on classes from `memdb class-influence`",
    ),
    OwnTable(frozenset({"difference", "n_compared"}), "what `memdb compare` says of two stores"),
    OwnTable(frozenset({"found_by", "similarity"}), "the near-duplicates from `memdb duplicates`"),
    OwnTable(frozenset({"auc", "sd_in", "sd_out"}), "an attack from `memdb membership`"),
    OwnTable(frozenset({"lds", "n_held_out"}), "the grades of attribution scores from `memdb lds`"),
    OwnTable(frozenset({"estimator", "mean_lds"}), "the grades of estimators from `memdb lds`"),
    OwnTable(frozenset({"estimator", "plain_models"}), "the grades of estimators from `memdb frontier`"),
    OwnTable(frozenset({"suggested_label", "p_given"}), "the suspects from `memdb label-errors`"),
    OwnTable(frozenset({"control", "n_removed"}), "what `memdb experiment removal` found"),
    OwnTable(
        frozenset({"train_id", "key", "action"}),
        "a list of training examples to drop or keep",
        "give it to `memdb init --without-ids FILE` or `memdb init --only-ids FILE`",
    ),
    OwnTable(
        frozenset({"train_id", "target_id", "influence"}),
        "a list of influences on training examples, which score tables have no place for",
        "influences on test examples come in: `memdb pairs -o pairs.csv`",
    ),
)


def own_table(columns: Collection[str]) -> OwnTable | None:
    """Return which of these tables has such columns, None for other people's and for scores."""
    return next((table for table in TABLES if table.columns <= set(columns)), None)
