"""Round trips, the linear datamodeling score and the membership attack on a store of digits.

python scripts/figures_interop.py memdb.zarr

The store, which is only read, needs logit confidences; `memdb demo` makes one. Prints differences of what
was exported and imported again (all 0); the linear datamodeling score of influences estimated from one half of
the models, graded on the other half; and the AUC of the likelihood-ratio attack.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import memdb
from memdb.database import Database
from memdb.errors import MemdbError
from memdb.format import bits


@dataclass
class Scores:
    """Attribution scores in memory, [test, train]."""

    values: NDArray[np.float64]
    place: str = "scores of one half"

    @property
    def shape(self) -> tuple[int, ...]:
        """Test and training examples."""
        return self.values.shape

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return the scores on some test examples."""
        return self.values[start:stop]


def main() -> None:
    try:
        opened = memdb.open(sys.argv[1] if len(sys.argv) > 1 else "memdb.zarr")
    except MemdbError as error:
        sys.exit(f"{error}: {error.hint}")
    with opened as db:
        print(f"{db.url}: {db.n_models} models of {db.store.manifest.dataset}")
        with tempfile.TemporaryDirectory() as folder:
            round_trips(db, Path(folder))
        halves(db)
        attack(db)


def round_trips(db: Database, folder: Path) -> None:
    db.export(folder / "runs.npz", "models")
    memdb.import_file(folder / "runs.npz", str(folder / "runs.zarr"))
    with memdb.open(str(folder / "runs.zarr")) as back:
        for outcome in ("correct", "confidence"):
            ours, theirs = (np.array(d.memorization(outcome=outcome).fetchall(), float) for d in (db, back))
            print(
                f"models, memorization by {outcome}: {differing(ours, theirs)} of {ours.size:,} numbers differ"
            )
        for test_id in (0, 1):
            ours, theirs = (np.array(d.influence(test_id=test_id).fetchall(), float) for d in (db, back))
            print(
                f"models, influence on test {test_id}: {differing(ours, theirs)} of {ours.size:,} numbers differ"
            )
    db.export(folder / "classes.npz", "fz-classes")
    memdb.import_file(folder / "classes.npz", str(folder / "scores.zarr"))
    with memdb.open(str(folder / "scores.zarr")) as back:
        back.export(folder / "again.npz", "fz-classes")
    with np.load(folder / "classes.npz") as ours_file, np.load(folder / "again.npz") as theirs_file:
        n = sum(ours_file[name].size for name in ours_file)
        wrong = sum(differing(ours_file[name], theirs_file[name]) for name in ours_file)
    print(f"class matrices out, in and out again: {wrong} of {n:,} numbers differ")
    db.export(folder / "lira", "lira")
    memdb.import_file(folder / "lira", str(folder / "lira.zarr"))
    with memdb.open(str(folder / "lira.zarr")) as back:
        path = "train/logit_confidence"
        ours, theirs = (d.snapshot.outcome_values(path) for d in (db, back))
        print(f"keep and scores: {differing(ours, theirs)} of {ours.size:,} confidences differ")


def differing(ours: NDArray[Any], theirs: NDArray[Any]) -> int:
    return int((ours != theirs).sum()) if ours.shape == theirs.shape else -1


def halves(db: Database) -> None:
    snapshot = db.snapshot
    mask = bits.unpack(snapshot.mask(), snapshot.n_models)
    first = np.arange(snapshot.n_models) < snapshot.n_models // 2
    held_out = [m.model_id for (_, m), used in zip(snapshot.models, first, strict=True) if not used]
    outcomes = {
        "logit_confidence": snapshot.outcome_values("test/logit_confidence").T.astype(np.float64),
        "correct": bits.unpack(snapshot.outcome_bits("test/correct"), snapshot.n_models).astype(np.float64),
    }
    inside = mask[first].astype(np.float64)
    for outcome, values in outcomes.items():
        y = values[first]
        influence = inside.T @ y / inside.sum(axis=0)[:, None]
        influence -= (1 - inside).T @ y / (1 - inside).sum(axis=0)[:, None]
        found = db.lds(Scores(influence.T), outcome=outcome, model_ids=held_out).limit(1).fetchall()[0]
        mean, lo, hi, n_scored, n_models, _ = found[5:]
        print(
            f"LDS of influences of {int(first.sum())} models on {n_models} others, {outcome}: {mean:.3f} "
            f"[{lo:.3f}, {hi:.3f}] over {n_scored} test examples"
        )


def attack(db: Database) -> None:
    for variant in ("online", "offline"):
        for variance in ("example", "pooled"):
            rows = db.membership(variant=variant, variance=variance)
            first = dict(zip(rows.columns, rows.limit(1).fetchall()[0], strict=True))
            print(
                f"membership, {variant}, variance {variance}: AUC {first['attack_auc']:.3f} (from "
                f"{first['attack_auc_least']:.3f} to {first['attack_auc_most']:.3f} over {first['n_targets']} models), "
                f"found at 1 in 100 false: {first['tpr_at_1_in_100']:.3f}"
            )


if __name__ == "__main__":
    main()
