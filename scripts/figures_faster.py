"""How far scores from few models are from the truth, and how well they rank: raw, `shrunk`, and 0 for all.

The truth is the score from other models than those that are judged, or known where outcomes are simulated. For each
number of models: the mean squared error over all pairs of training and test example, with the noise of the truth
taken out, and the share of the 500 pairs with the largest true influence among the first 500. ``before`` is
`shrunk` as it once was, fitted to z statistics with each arm's own variance; ``shrunk`` is fitted to all
pairs, as `memdb pairs` does, and ``in lists`` to the pairs of one test example at a time, as `memdb top-influence`
does.

    python scripts/figures_faster.py                      simulated outcomes, and MLPs on scikit-learn's digits
    python scripts/figures_faster.py --data-root DIR      MNIST with flipped labels and 5 classes of CIFAR-100, too
    python scripts/figures_faster.py --models 4000        the noise of the truth halves

Subcommands are about calibrated predictions and screened tests (`figures_informed.py`, `figures_equivalent.py`):

    python scripts/figures_faster.py equivalent --data-root DIR     what few models are worth: an hour of one core
    python scripts/figures_faster.py equivalent --short             a fifth of the models, perceptrons: five minutes
    python scripts/figures_faster.py harm       priors that are noise or adversarial, simulated: two minutes
    python scripts/figures_faster.py digits     ranks, coverage and screened tests on digits: four minutes
    python scripts/figures_faster.py cost       4,000 models, 50,000 x 10,000 examples, 10 sketched: minutes, 3 GB

DIR is what torchvision reads. Expect five minutes on two cores, three times that with --data-root, and all targets
met: the error of `shrunk` is at most that of 0, or 5 % more in lists, whose fits have little to go by. The exit code
is 1 if one is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import check_lists
import numpy as np
from numpy.typing import NDArray

import memdb
from memdb import datasets
from memdb.query import mixture, statistics
from memdb.query.mixture import Effects
from memdb.query.statistics import Candidates

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]
JUDGED = (50, 100, 200, 400, 1000)  # models
FIRST = 500
MARGINS = {"shrunk": 1.001, "in lists": 1.05}  # of the error of 0, that still count as no worse


@dataclass(frozen=True)
class Runs:
    """What models of one data set did, and the true influences, [test, train]."""

    masks: Flags  # [models, train]
    right: Flags  # [models, test]
    same_class: Flags  # [test, train]
    truth: Numbers = field(default_factory=lambda: np.zeros(0))
    noise: float = 0.0  # variance of the truth, mean over all pairs


def simulated(random: np.random.Generator, share: float, n_train: int = 800, n_test: int = 250) -> Runs:
    """Draw outcomes whose true influences are known, ``share`` of those that `check_lists` draws."""
    drawn = check_lists.draw_truth(random, n_train, n_test)
    effects = share * drawn.effects
    truth = check_lists.Truth(drawn.train_labels, drawn.test_labels, drawn.base, effects, drawn.own)
    order = random.random((max(JUDGED), n_train)).argsort(axis=1)
    masks = order < check_lists.FRACTION * n_train
    right = random.random((len(masks), n_test)) < truth.chances(masks)["test"]
    return Runs(masks, right, drawn.test_labels[:, None] == drawn.train_labels, truth.influence.T)


def trained(data: memdb.Dataset, n_models: int, **options: Any) -> Runs:
    """Train memdb's MLP on a data set; the truth is the score from the models after those that are judged."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"{folder}/models.zarr"
        with memdb.init(url, data, recipe_options=options, outcomes=("correct",), seed=0) as db:
            db.train(seeds=range(n_models))
            db.export(f"{folder}/models.npz", "models")
        with np.load(f"{folder}/models.npz") as models:
            masks, right = models["mask"].astype(np.bool_), models["test_correct"].astype(np.bool_)
    same_class = data.test.labels[:, None] == data.train.labels
    n_judged = max(JUDGED)
    rest = candidates(Runs(masks[n_judged:], right[n_judged:], same_class), n_models - n_judged)
    truth = rest.score.reshape(same_class.shape)
    return Runs(masks, right, same_class, truth, float((rest.effect_se**2).mean()))


def digits(n_models: int) -> Runs:
    """Train on scikit-learn's digits, with 5 % of the labels flipped."""
    data = datasets.load("digits")
    train, test = ((part.array, part.labels) for part in (data.train, data.test))
    mislabelled = memdb.Dataset(train[0], flipped(train[1]), *test)
    return trained(mislabelled, n_models, hidden=[32], epochs=6, batch_size=100, lr=0.01)


def mnist(root: str, n_models: int) -> Runs:
    """Train on 2,500 pictures of MNIST with 5 % of the labels flipped; 1,000 are tested."""
    data = datasets.load("mnist", root)
    (x, labels), test = (chosen(part, n) for part, n in ((data.train, 2500), (data.test, 1000)))
    halved = [pictures[:, ::2, ::2] for pictures in (x, test[0])]
    made = memdb.Dataset(halved[0], flipped(labels), halved[1], test[1])
    return trained(made, n_models, hidden=[64], epochs=8, batch_size=100, lr=0.01)


def cifar(root: str, n_models: int) -> Runs:
    """Train on the first five classes of CIFAR-100, 16 x 16 pixels."""
    data = datasets.load("cifar100", root)
    (x, labels), test = (chosen(part, len(part), n_classes=5) for part in (data.train, data.test))
    halved = [pictures[:, ::2, ::2] for pictures in (x, test[0])]
    made = memdb.Dataset(halved[0], labels, halved[1], test[1])
    return trained(made, n_models, hidden=[64], epochs=10, batch_size=100, lr=0.005)


def chosen(part: Any, n: int, n_classes: int | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return pictures and labels drawn from a set, of some classes."""
    rows = np.random.default_rng(0).permutation(len(part))
    rows = rows if n_classes is None else rows[part.labels[rows] < n_classes]
    return np.stack([np.asarray(part[row][0]) for row in rows[:n]]), part.labels[rows[:n]]


def flipped(labels: NDArray[Any], share: float = 0.05) -> NDArray[Any]:
    """Return labels some of which are wrong."""
    random, n_classes = np.random.default_rng(1), int(labels.max()) + 1
    wrong = random.random(len(labels)) < share
    return np.where(wrong, (labels + random.integers(1, n_classes, len(labels))) % n_classes, labels)


def candidates(runs: Runs, n_models: int) -> Candidates:
    """Return all pairs of the first models, ordered by test example; those without a score as scores of 0."""
    masks, right = (outcomes[:n_models].astype(np.float64) for outcomes in (runs.masks, runs.right))
    n_in, k_in, total = masks.sum(axis=0), right.T @ masks, right.sum(axis=0)[:, None]
    n_out, k_out = n_models - n_in, total - k_in
    with np.errstate(divide="ignore", invalid="ignore"):
        p_in, p_out, p = k_in / n_in, k_out / n_out, total / n_models
        effect_se = np.sqrt(p_in * (1 - p_in) / n_in + p_out * (1 - p_out) / n_out)
        null_se = np.sqrt(p * (1 - p) * n_models / (n_models - 1) * (1 / n_in + 1 / n_out))
    a_in, a_out = (k_in + 1) / (n_in + 2), (k_out + 1) / (n_out + 2)
    ac_z = (a_in - a_out) / np.sqrt(a_in * (1 - a_in) / (n_in + 2) + a_out * (1 - a_out) / (n_out + 2))
    has_score = n_in * n_out > 0

    def known(values: Numbers) -> Numbers:
        return np.where(has_score, values, 0.0).ravel()

    return Candidates(
        score=known(p_in - p_out),
        effect_se=known(effect_se),
        ac_z=known(ac_z),
        null_se=known(null_se),
        n_in=np.broadcast_to(n_in, k_in.shape).ravel().astype(np.int64),
        n_models=n_models,
        strata=runs.same_class.ravel(),
        hits=k_in.ravel().astype(np.int64),
        total=np.broadcast_to(total, k_in.shape).ravel().astype(np.int64),
    )


def before(found: Candidates) -> Numbers:
    """Return what `shrunk` was: fitted with each arm's own variance, and believed without question."""
    z = np.abs(np.divide(found.score, found.effect_se, out=np.zeros(len(found)), where=found.effect_se > 0))
    agreeing = np.maximum(found.ac_z * np.sign(found.score), 0.0)
    evidence = np.where(found.effect_se > 0, np.minimum(z, agreeing), agreeing)
    factors = np.zeros(len(found))
    for stratum in (True, False):
        inside = found.strata == stratum
        weights = mixture.fitted_mixture(mixture.binned(z[inside & (found.effect_se > 0)]))
        factors[inside] = mixture.shrinkage(evidence[inside], weights)
    return found.score * factors


def of_all_pairs(found: Candidates) -> Numbers:
    """Return `shrunk` fitted to all pairs as `memdb pairs` does, from a histogram of z."""
    z = np.abs(found.null_z)
    varies = found.null_se > 0
    return statistics.shrunk(
        found,
        {same: Effects.fitted(mixture.binned(z[varies & (found.strata == same)])) for same in (True, False)},
    )


def in_lists(found: Candidates, n_lists: int) -> Numbers:
    """Return `shrunk` fitted to the pairs of each test example separately."""
    n = len(found) // n_lists
    return np.concatenate(
        [statistics.shrunk(found.part(slice(at, at + n))) for at in range(0, len(found), n)]
    )


def judge(runs: Runs, n_models: int) -> dict[str, tuple[float, float]]:
    """Return the squared error of each kind of score, in 1e-5, and its precision."""
    found, truth = candidates(runs, n_models), runs.truth.ravel()
    strongest = np.zeros(len(truth), dtype=np.bool_)
    strongest[np.argsort(-truth, kind="stable")[:FIRST]] = True
    scores = {
        "0": np.zeros(len(truth)),
        "raw": found.score,
        "before": before(found),
        "shrunk": of_all_pairs(found),
        "in lists": in_lists(found, len(runs.truth)),
    }
    return {
        name: (
            1e5 * (float(((score - truth) ** 2).mean()) - runs.noise),
            float(strongest[np.lexsort((-found.score, -score))[:FIRST]].mean()),
        )
        for name, score in scores.items()
    }


def report(name: str, runs: Runs) -> bool:
    """Print the table of one data set, and return whether `shrunk` is never worse than 0."""
    met = True
    for n_models in JUDGED:
        judged = judge(runs, n_models)
        if n_models == JUDGED[0]:
            n_test, n_train = runs.truth.shape
            print(
                f"\n{name}: {n_train:,} x {n_test:,} pairs; squared error in 1e-5, precision of the first {FIRST}"
            )
            print("models  " + "  ".join(f"{kind:>14}" for kind in judged))
        cells = [
            f"{error:8.3f}" + (f"  {precision:.3f}" if kind != "0" else "       ")
            for kind, (error, precision) in judged.items()
        ]
        print(f"{n_models:6,}  " + " ".join(cells), flush=True)
        met &= all(judged[kind][0] <= margin * judged["0"][0] for kind, margin in MARGINS.items())
    print(f"target no worse than 0: {'met' if met else 'MISSED'}", flush=True)
    return met


def cases(options: argparse.Namespace) -> Iterator[tuple[str, Runs]]:
    """Yield the data sets that are judged."""
    for share in (1.0, 0.3):
        yield f"simulated, strongest influence {share * 0.25:.2g}", simulated(np.random.default_rng(0), share)
    yield "digits, 5 % flipped", digits(options.models)
    if options.data_root:
        yield "MNIST, 5 % flipped", mnist(options.data_root, options.models)
        yield "5 classes of CIFAR-100", cifar(options.data_root, options.models)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", metavar="DIR", help="the folder that holds MNIST and CIFAR-100")
    parser.add_argument(
        "--models", type=int, default=2000, help=f"of each set; the truth is from {max(JUDGED):,} on"
    )
    import figures_equivalent
    import figures_informed  # which imports this module
    import figures_lds

    commands = parser.add_subparsers(title="subcommands")
    figures_equivalent.add_command(commands)
    figures_informed.add_commands(commands)
    figures_lds.add_command(commands)
    options = parser.parse_args()
    started = time.perf_counter()
    if "run" in options:
        return 0 if options.run(options) else 1
    met = [report(name, runs) for name, runs in cases(options)]
    print(f"\n{time.perf_counter() - started:.0f} seconds")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
