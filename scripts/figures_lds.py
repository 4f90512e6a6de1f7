"""How much of what models do is linear in their masks, whether forecasts from that come true, and what scores reach.

shares     stores simulated with a known linear share: what is estimated, and 0 with permuted masks
intervals  how often the interval of the share holds it, over many small stores
forecast   the linear datamodeling score of raw influences from 25 to 250 models, forecast and measured
grades     `memdb lds`: estimators from half of the models, graded on the others
frontier   `memdb frontier`: how good estimates from few models are
exact      whether exact influences score what `memdb frontier` says that they would, where they are known

    python scripts/figures_lds.py            or: python scripts/figures_faster.py lds
    python scripts/figures_lds.py --models 4000

Expect three minutes on one core, and all targets met; the exit code is 1 if one is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import check_lists
import numpy as np
from numpy.typing import NDArray

import memdb
from memdb import datasets
from memdb.analysis.attribution.estimates import Estimate
from memdb.analysis.attribution.linear_share import linear_share
from memdb.analysis.attribution.pilots import order_of_models
from memdb.analysis.attribution.truth import Truth
from memdb.render.frontier import two_digits

Numbers = NDArray[np.float64]
SHARES = (0.0, 0.1, 0.3, 0.6)
FORECAST = (25, 50, 100, 250)  # models
WITHIN = {"shares": 0.03, "forecast": 0.02, "exact": 0.1}
FRACTION = 0.7
N_MODELS = 1500


@contextmanager
def imported(masks: NDArray[np.bool_], **outcomes: Any) -> Iterator[memdb.Database]:
    """Open a store of models with these masks and outcomes on test examples."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/runs.npz", mask=masks, train_correct=masks, **outcomes)
        memdb.import_file(f"{folder}/runs.npz", f"{folder}/store.zarr")
        with memdb.open(f"{folder}/store.zarr") as db:
            yield db


def simulated(
    share: float, seed: int, n_train: int = 500, n_models: int = 1000, n_test: int = 200
) -> tuple[NDArray[np.bool_], Numbers]:
    """Draw masks, and outcomes of variance 1 of which this share is linear in the mask.

    A few examples matter for each test example; part of the noise is shared by all outcomes of a model.
    """
    random = np.random.default_rng(seed)
    masks = random.random((n_models, n_train)).argsort(axis=1) < round(FRACTION * n_train)
    effects = random.standard_normal((n_train, n_test)) * (random.random((n_train, n_test)) < 0.05)
    effects -= effects.mean(axis=0)
    linear = (masks - FRACTION) @ effects
    linear /= np.sqrt(FRACTION * (1 - FRACTION) * n_train / (n_train - 1) * (effects**2).sum(axis=0))
    noise = random.standard_normal((n_models, n_test)) * 0.95
    noise += random.standard_normal((n_models, 1)) * np.sqrt(1 - 0.95**2)
    return masks, np.sqrt(share) * linear + np.sqrt(1 - share) * noise


def shares() -> bool:
    """Print the estimates of known shares, for real outcomes and for right and wrong."""
    print("\nshares: known, estimated with a 95 % interval, and with permuted masks")
    met = True
    for share in SHARES:
        masks, values = simulated(share, seed=1)
        chance = 0.5 + np.clip(values, -2, 2) / 4  # what a model is right with
        right = np.random.default_rng(2).random(chance.shape) < chance
        known = {"real": share, "correct": share * (np.clip(values, -2, 2) / 4).var() / 0.25}
        logits = (2 * values).astype(np.float16)
        trained = np.where(masks, 1, -1).astype(np.float16)
        with imported(
            masks, test_correct=right, test_logit_confidence=logits, train_logit_confidence=trained
        ) as db:
            for kind, outcome in (("real", "logit_confidence"), ("correct", "correct")):
                found = linear_share(db.relations(), outcome, 0.95)
                assert found is not None
                print(
                    f"{kind:8} {known[kind]:.3f}  {found.h2:+.3f} [{found.lo:+.3f}, {found.hi:+.3f}]  "
                    f"permuted {found.permuted:+.4f} +- {found.permuted_se:.4f}",
                    flush=True,
                )
                met &= abs(found.h2 - known[kind]) <= WITHIN["shares"]
                met &= abs(found.permuted) <= 2 * found.permuted_se
    return said("within .03, and permuted 0 within two standard errors", met)


def intervals(n_stores: int = 60) -> bool:
    """Print how often intervals hold the share."""
    held = []
    for seed in range(n_stores):
        share = SHARES[seed % len(SHARES)]
        masks, values = simulated(share, 100 + seed, n_train=200, n_models=300, n_test=50)
        logits = (2 * values).astype(np.float16)
        trained = np.where(masks, 1, -1).astype(np.float16)
        with imported(
            masks, test_correct=values > 0, test_logit_confidence=logits, train_logit_confidence=trained
        ) as db:
            found = linear_share(db.relations(), "logit_confidence", 0.95)
        assert found is not None
        held.append(found.lo <= share <= found.hi)
    print(f"\nintervals: {np.mean(held):.2f} of {n_stores} hold the share, nominal .95")
    return said("at least .88, three standard errors below", bool(np.mean(held) >= 0.88))


def digits(folder: str, n_models: int) -> memdb.Database:
    """Train MLPs on scikit-learn's digits, 20 of them sketched."""
    db = memdb.init(f"{folder}/digits.zarr", datasets.load("digits"), seed=0, sketches=20)
    db.train(seeds=range(n_models))
    return db


def forecast(db: memdb.Database) -> bool:
    """Print forecast and measured scores of raw influences."""
    print("\nforecast: the mean linear datamodeling score of raw influences, and its ceiling")
    met = True
    for outcome in ("logit_confidence", "correct"):
        for n_models in FORECAST:
            table = db.compare_lds(estimators=["raw"], pilots=n_models, outcome=outcome, resamples=20)
            row = table.to_arrow_table().to_pylist()[0]
            print(
                f"{outcome:16} {n_models:4} models  {row['forecast']:.3f}  {row['mean_lds']:.3f}  "
                f"of {row['ceiling']:.3f}",
                flush=True,
            )
            met &= abs(row["forecast"] - row["mean_lds"]) <= WITHIN["forecast"]
    return said("forecast within .02", met)


def grades(db: memdb.Database) -> bool:
    """Print what estimators from few and from half of the models score."""
    for n_models in (100, db.n_models // 2):
        print(f"\ngrades: from {n_models:,} models")
        for row in db.compare_lds(pilots=n_models, tests=200).to_arrow_table().to_pylist():
            share = "" if row["of_ceiling"] is None else f"{row['of_ceiling']:.0%} of {row['ceiling']:.3f}"
            print(
                f"{row['estimator']:10} {row['mean_lds']:+.3f} [{row['lo']:+.3f}, {row['hi']:+.3f}]  {share}",
                flush=True,
            )
    return True


def frontier(db: memdb.Database) -> bool:
    """Print the quality of estimates from few models, and how many plain ones are as good."""
    print("\nfrontier: quality, and in parentheses the raw models that are as good")
    rows = db.frontier(models=[25, 50, 100, 200, 400]).to_arrow_table().to_pylist()
    measures = [("correlation", None), ("precision", 100), ("precision", 500), ("top_10", 10), ("error", 500)]
    measures += [("coverage", None), ("coverage_of_first", 500), ("certified", None)]
    print(f"{'':15} " + " ".join(f"{f'{name[:9]}@{at or 0}':>15}" for name, at in measures))
    lines: dict[tuple[str, int | None], dict[tuple[str, int | None], str]] = {}
    bounds = {"at least": ">", "at most": "<", None: ""}
    for row in rows:
        cell = "-" if row["value"] is None else f"{row['value']:.3f}"
        if row["plain_extrapolated"] is not None:
            cell += f" (~{two_digits(row['plain_extrapolated']):,})"
        elif row["plain_models"] is not None:
            cell += f" ({bounds[row['plain_bound']]}{row['plain_models']:,})"
        lines.setdefault((row["estimator"], row["n_models"]), {})[row["measure"], row["at"]] = cell
    for (name, n_models), cells in lines.items():
        print(
            f"{name:8} {n_models or '':>6} " + " ".join(f"{cells.get(key, ''):>15}" for key in measures),
            flush=True,
        )
    return True


def exact() -> bool:
    """Print what known influences score against a truth from models, and what was said that they would."""
    print("\nexact: what true influences score, simulated without knowing them and measured")
    random, met = np.random.default_rng(0), True
    for n_models in (1000, 2000, 6000):
        truth = check_lists.draw_truth(random, 500, 96)
        masks = random.random((n_models, 500)).argsort(axis=1) < FRACTION * 500
        right = random.random((n_models, 96)) < truth.chances(masks)["test"]
        known = truth.influence.T[:72]  # the others have no influences
        with imported(masks, test_correct=right) as db:
            models = order_of_models(db.snapshot)
            judge = Truth.of(db.relations(), models, np.arange(72), [50, 100], 0.95)
            said_of = {(m.name, m.at): m.value for m in judge.judge_exact()}
            measured = {(m.name, m.at): m.value for m in judge.judge(Estimate(known.astype(np.float32)))}
        for key, value in said_of.items():
            if key[0] != "precision":  # ties: no test example has ten influences here
                continue
            print(
                f"{n_models:6,} models  {key[0]:9} {key[1]:4}  {value:.3f}  {measured[key]:.3f}", flush=True
            )
            met &= abs(float(value or 0) - float(measured[key] or 0)) <= WITHIN["exact"]
    return said("within .1", met)


def said(target: str, met: bool) -> bool:  # noqa: FBT001
    """Print whether a target is met."""
    print(f"target {target}: {'met' if met else 'MISSED'}", flush=True)
    return met


def run(n_models: int) -> bool:
    """Print all figures, and return whether all targets are met."""
    met = [shares(), intervals(), exact()]
    with tempfile.TemporaryDirectory() as folder, digits(folder, n_models) as db:
        met += [forecast(db), grades(db), frontier(db)]
    return all(met)


def add_command(commands: Any) -> None:
    """Add this script as a subcommand of another."""
    assert __doc__ is not None
    parser = commands.add_parser(
        "lds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=N_MODELS, help="of digits")
    parser.set_defaults(run=lambda options: run(options.models))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=N_MODELS, help="of digits")
    options = parser.parse_args()
    started = time.perf_counter()
    met = run(options.models)
    print(f"\n{time.perf_counter() - started:.0f} seconds")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
