"""What tests of extended and merged stores share: the answers of a store, and one that trained everything."""

from __future__ import annotations

import memdb
from support.stores import bits_of, coin_recipe, small_dataset


def answers(db, *, everything=False):
    """Rows of several questions, and the hash over the models that they are of."""
    found = [
        db.models_sha256,
        db.top_memorized(23).fetchall(),
        db.sql(
            "SELECT * FROM influence WHERE test_id = 7 ORDER BY train_id", outcome="confidence"
        ).fetchall(),
    ]
    if everything:
        found += [
            db.top_memorized(23, outcome="confidence", ranks=True).fetchall(),
            db.pairs(top=4).fetchall(),
        ]
        found += [
            db.top_influence(**{side: 3}, k=23).fetchall() for side in ("test_id", "train_id", "target_id")
        ]
    return found


def whole(url, *snapshots):
    """A store into which all models of these were committed as they are, one after the other."""
    one = memdb.init(str(url), small_dataset(), coin_recipe)
    for snapshot in snapshots:
        masks, train, test = bits_of(snapshot)
        outcomes = {"train/correct": train, "test/correct": test}
        for path in ("train/logit_confidence", "test/logit_confidence"):
            outcomes[path] = snapshot.outcome_values(path).T
        one.store.commit([info for _, info in snapshot.models], masks, outcomes)
    return one
