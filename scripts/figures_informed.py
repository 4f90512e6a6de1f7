"""What calibrated predictions and screened tests are worth, and cost: the subcommands of `figures_faster.py`."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import synthetic_store
from figures_faster import FIRST, Numbers, Runs, flipped, simulated
from numpy.typing import NDArray

import memdb
from memdb import datasets
from memdb.format import bits
from memdb.format.sketches import Projection
from memdb.query.informed.calibration import Calibration, Curve, Spread, calibrated
from memdb.query.informed.evidence import Outcomes
from memdb.query.informed.pairs import informed_search, predicted
from memdb.query.informed.posterior import noise, posterior, smoothed
from memdb.query.informed.prior import GivenPrior, dealt, scores
from memdb.query.informed.sampling import sampled
from memdb.query.informed.screening import parted, strongest, tested
from memdb.query.options import Estimator
from memdb.query.statistics import q_values
from memdb.store.read_sketches import sketch_arrays

FDR = 0.1
LEVEL_Z = 1.959964
EVERY = slice(None)


# Harm: priors that are noise, or worse ------------------------------------------------------------------------------


def outcomes_of(runs: Runs, n_models: int, fold_of: NDArray[np.int8] | None = None) -> Outcomes:
    """Return the outcomes of the first models as packed bits."""
    mask, right = (bits.words(bits.pack(values[:n_models])) for values in (runs.masks, runs.right))
    return Outcomes(mask, right, dealt(n_models, []) if fold_of is None else fold_of)


def raw_of(runs: Runs, models: Any) -> Numbers:
    """Return the raw influences over some models, [train, test]."""
    masks, right = (values[models].astype(np.float64) for values in (runs.masks, runs.right))
    n_in = masks.sum(axis=0)[:, None]
    k_in = masks.T @ right
    n_out = len(masks) - n_in
    k_out = right.sum(axis=0) - k_in
    raw: Numbers = k_in / np.maximum(n_in, 1) - k_out / np.maximum(n_out, 1)
    return np.where((n_in > 0) & (n_out > 0), raw, 0.0)


def informed_of(runs: Runs, n_models: int, prior: Numbers) -> tuple[Numbers, Numbers] | None:
    """Return predictions and their standard deviations from a given prior; None where it explains nothing."""
    outcomes, given = outcomes_of(runs, n_models), GivenPrior(prior)
    found, _ = calibrated(sampled(outcomes, given))
    if found is None:
        return None
    prediction = found.curve(scores(given, EVERY, EVERY)).astype(np.float64)
    spread = found.spread(prediction.astype(np.float32)).astype(np.float64)
    n_in = runs.masks[:n_models].sum(axis=0)[:, None]
    accuracy = smoothed(runs.right[:n_models].sum(axis=0), n_models)
    raw, variance = raw_of(runs, slice(n_models)), noise(accuracy, n_in, n_models - n_in)
    after = posterior(raw, prediction, spread, variance)
    return after.informed.astype(np.float64), after.deviation.astype(np.float64)


def priors(random: np.random.Generator, runs: Runs, n_models: int) -> Iterator[tuple[str, Numbers]]:
    """Yield priors that are noise, adversarial, or informative, [train, test]."""
    truth = runs.truth.T
    yield "noise", random.normal(size=truth.shape)
    yield "noise by test example", np.repeat(random.normal(size=(1, truth.shape[1])), len(truth), axis=0)
    yield "adversarial: minus the truth", -truth
    behind = parted(n_models, np.arange(10)) == 0
    yield "adversarial: raw, of the models behind it", raw_of(runs, np.flatnonzero(behind))
    size = np.abs(truth)
    yield "adversarial: no effect first", random.random(truth.shape) - 2 * (size > 1e-12)
    yield "informative", truth + 2 * truth.std() * random.normal(size=truth.shape)


def harm(options: argparse.Namespace) -> bool:
    """Print what bad priors do to predictions and to the false discoveries of screened tests."""
    met = True
    print(
        f"{options.stores} simulated stores; error of predictions over that of raw influences, coverage of 95 %"
    )
    print(
        f"intervals, and the share of false findings at q <= {FDR} with their number, over all pairs and screened"
    )
    print(f"{'prior':44} models  error  cover  as raw  FDR screened (found)  FDR all pairs (found)")
    for n_models in (50, 100, 400):
        rows: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(options.stores):
            random = np.random.default_rng([seed, n_models])
            runs = simulated(random, 1.0, 400, 64)
            for name, prior in priors(random, runs, n_models):
                rows.setdefault(name, []).append(judged_of(runs, n_models, prior))
        for name, found in rows.items():
            covers = [row[1] for row in found if not np.isnan(row[1])]
            cover = f"{np.mean(covers):5.3f}" if covers else "     "
            error, _, as_raw, false, n_found, false_all, n_all = np.mean(np.array(found), axis=0)
            standard = np.std([row[3] for row in found]) / len(found) ** 0.5
            print(
                f"{name:44} {n_models:6}  {error:5.3f}  {cover}  {as_raw:6.2f}  {false:.3f} ({n_found:5.1f})"
                f"         {false_all:.3f} ({n_all:5.1f})",
                flush=True,
            )
            met &= false <= FDR + 2 * standard
            met &= "noise" not in name or error <= 1.02
    print(
        f"targets: no harm by noise within 2 %, false discoveries at most {FDR}: {'met' if met else 'MISSED'}"
    )
    return met


def judged_of(runs: Runs, n_models: int, prior: Numbers) -> tuple[float, ...]:
    """Return what one prior does on one store (see `harm`)."""
    truth, raw = runs.truth.T, raw_of(runs, slice(n_models))
    found = informed_of(runs, n_models, prior)
    ratio, cover = 1.0, float("nan")
    if found is not None:
        ratio = float(((found[0] - truth) ** 2).mean() / ((raw - truth) ** 2).mean())
        cover = float((np.abs(found[0] - truth) <= LEVEL_Z * found[1]).mean())
    outcomes = outcomes_of(runs, n_models, parted(n_models, np.arange(10)))
    trains, tests = np.arange(len(truth)), np.arange(truth.shape[1])
    train, test, _ = strongest(GivenPrior(prior), n_models, trains, tests, "helps")
    screened = false_of(truth, outcomes, train, test)
    every = outcomes_of(runs, n_models, np.ones(n_models, dtype=np.int8))
    all_pairs = false_of(truth, every, np.repeat(trains, len(tests)), np.tile(tests, len(trains)))
    return (ratio, cover, float(found is None), *screened, *all_pairs)


def false_of(
    truth: Numbers, outcomes: Outcomes, train: NDArray[np.int64], test: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the share of false findings among those at q <= FDR, and how many findings there are."""
    found = q_values(tested(outcomes, train, test, "helps").p) <= FDR
    if not found.any():
        return 0.0, 0.0
    return float((truth[train[found], test[found]] <= 1e-12).mean()), float(found.sum())


# Cost ---------------------------------------------------------------------------------------------------------------


def sketched_store(folder: Path, size: synthetic_store.Size, n_sketched: int, k: int) -> str:
    """Make a synthetic store whose sketches know of the planted influences, unless it is there."""
    url = str(folder / f"sketched-{size.n_models}-{size.n_train}-{size.n_test}-{n_sketched}-{k}.zarr")
    if Path(url).exists():
        return url
    labels = synthetic_store.labels_of(size, 0)
    truth = synthetic_store.draw_truth(size, *labels, 0)
    store = synthetic_store.new_store(url, *labels, ["correct", "logit_confidence"])
    random = np.random.default_rng(0)
    test = random.normal(size=(size.n_test, k)).astype(np.float32)
    train = random.normal(size=(size.n_train, k)).astype(np.float32)
    np.add.at(train, truth.train_id, test[truth.test_id])
    for start in range(0, size.n_models, size.batch):
        seeds = range(start, min(size.n_models, start + size.batch))
        sketches = None
        if start < n_sketched:
            drawn = {"train": noisy(train, n_sketched), "test": noisy(test, n_sketched)}
            sketches = sketch_arrays(Projection(k, 0), drawn, range(n_sketched))
        store.commit(*synthetic_store.batch(store, size, truth, 0, seeds), sketches=sketches)
    return url


def noisy(values: NDArray[np.float32], times: int) -> Iterator[NDArray[np.float16]]:
    """Yield sketches with noise, one model after the other."""
    random = np.random.default_rng(len(values))
    for _ in range(times):
        yield (values + random.normal(size=values.shape)).astype(np.float16)


def seconds_of(ask: Callable[[], Any], repeats: int = 5) -> float:
    """Return the smallest CPU seconds of some calls."""
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        ask()
        taken.append(time.process_time() - started)
    return min(taken)


def cost(options: argparse.Namespace) -> bool:
    """Print what a question and all pairs cost, in CPU seconds and memory."""
    size = synthetic_store.Size(options.models, options.train, options.test, 100, confidences=True)
    url = sketched_store(Path(options.folder), size, 10, 512)
    with memdb.open(url) as db:
        predictor = db.predictions(Estimator("informed")).relations.predictor
        started = time.process_time()
        kept = predictor.prior
        read = time.process_time() - started
        print(f"{url}: {kept.n_sketched} sketches read and whitened, errors summed in {read:.1f} CPU seconds")
        started = time.process_time()
        found = predictor.calibration
        print(
            f"calibrated in {time.process_time() - started:.1f} CPU seconds{'' if found else ': explains nothing'}"
        )
        if found is None:  # few of the sampled pairs are planted; a curve of as many points costs as much
            at = np.linspace(-0.1, 0.1, 24)
            vars(predictor).update(
                _fit=(Calibration(Curve(1.0, at, at), Spread(1e-5, 0.01, 0.1), 0, 0), 2.0), why_raw=None
            )
        ids = iter(range(1, 1000))
        informed = seconds_of(lambda: db.top_influence(test_id=next(ids), estimator="informed"))
        raw = seconds_of(lambda: db.top_influence(test_id=next(ids)))
        print(
            f"one test example warm: raw {raw:.3f}, informed {informed:.3f} CPU seconds, {informed / raw:.2f} times"
        )
        all_pairs(db, options.slice)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    print(f"peak memory {peak:.2f} GiB")
    met = informed <= 2 * raw
    print(f"target at most twice the raw question: {'met' if met else 'MISSED'}")
    return met


def all_pairs(db: memdb.Database, n_blocks: int) -> None:
    """Search some blocks of test examples, and scale to all."""
    relations = db.predictions(Estimator("informed")).relations
    search = informed_search(relations, {"top": 100, "device": "cpu"})
    wall, cpu = time.perf_counter(), time.process_time()
    blocks = list(search.blocks(frozenset(range(n_blocks, search.n_blocks))))
    table = predicted(search, relations.predictor, blocks, 0.95)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    share = n_blocks / search.n_blocks
    print(
        f"all pairs: {n_blocks} of {search.n_blocks} blocks in {wall:.0f} s, {cpu:.0f} CPU seconds "
        f"({table.num_rows:,} rows); all of them, scaled: {cpu / share / 60:.1f} CPU minutes"
    )


# Digits -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judge:
    """The truth, from models that no estimate has, and how near estimates come."""

    truth: Numbers  # [train, test]
    variance: Numbers  # of the truth
    strong: NDArray[np.int64]  # test examples with a pair at .05 or more

    def row(self, estimate: Numbers) -> dict[str, float]:
        """Return squared error (1e-5), correlation with the truth without its noise, and precisions."""
        truth, noisy = self.truth, float(self.variance.mean())
        error = 1e5 * (float(((estimate - truth) ** 2).mean()) - noisy)
        correlation = np.corrcoef(estimate.ravel(), truth.ravel())[0, 1] / np.sqrt(1 - noisy / truth.var())
        top = [first_of(values, 10)[:, self.strong] for values in (estimate, truth)]
        shared = [len(np.intersect1d(*lists)) for lists in zip(top[0].T, top[1].T, strict=True)]
        found = {"error": error, "correlation": float(correlation), "top 10": float(np.mean(shared)) / 10}
        for k in (100, FIRST):
            here, there = (first_of(values.ravel()[:, None], k)[:, 0] for values in (estimate, truth))
            found[f"p@{k}"] = len(np.intersect1d(here, there)) / k
        return found


def first_of(values: Numbers, k: int) -> NDArray[np.int64]:
    """Return the rows of the k largest values of each column, [k, columns]."""
    return np.argpartition(-values, k, axis=0)[:k]


def digits(options: argparse.Namespace) -> bool:
    """Print how predictions from few models rank and cover on digits, in plain models of equal quality."""
    data = datasets.load("digits")
    train, test = ((part.array, part.labels) for part in (data.train, data.test))
    mislabelled = memdb.Dataset(train[0], flipped(train[1]), *test)
    counts = sorted(options.judged)
    with tempfile.TemporaryDirectory() as folder:
        url = f"{folder}/digits.zarr"
        recipe = {"hidden": [64], "epochs": 12}
        with memdb.init(url, mislabelled, recipe_options=recipe, seed=0, sketches=10) as db:
            db.train(seeds=range(counts[0]))
            found = {counts[0]: asked_of_store(db)}
            for n_models in counts[1:]:
                db.train(seeds=range(n_models))
                db.refresh()
                found[n_models] = asked_of_store(db)
            db.train(seeds=range(options.models))
            db.export(f"{folder}/models.npz", "models")
        with np.load(f"{folder}/models.npz") as models:
            runs = Runs(
                models["mask"].astype(np.bool_),
                models["test_correct"].astype(np.bool_),
                np.empty((0, 0), dtype=np.bool_),
            )
    return judged_digits(runs, found, options.models)


def asked_of_store(db: memdb.Database) -> tuple[Numbers, Numbers, dict[str, Any], set[tuple[int, int]]]:
    """Return predictions and their standard deviations [train, test], facts, and the pairs that screening finds."""
    n_train, n_test = db.store.manifest.train.n_examples, db.store.manifest.set_named("test").n_examples
    ids = ", ".join(map(str, range(n_test)))
    rows = db.sql(
        f"SELECT coalesce(informed, 0), coalesce(hi - lo, 0) FROM influence_of([{ids}]) "  # noqa: S608
        "ORDER BY train_id, test_id",
        estimator="informed",
    )
    columns = [np.asarray(column).reshape(n_train, n_test) for column in rows.fetchnumpy().values()]
    screened = db.pairs(screen="auto").project("train_id, test_id, q_value").fetchall()
    certified = {(train, test) for train, test, q in screened if q <= FDR}
    return columns[0], columns[1] / 2 / LEVEL_Z, db.estimator_facts(), certified


def judged_digits(runs: Runs, found: dict[int, Any], n_models: int) -> bool:
    """Print the table."""
    start = max(*found, n_models // 3)
    masks, right = runs.masks[start:].astype(np.float64), runs.right[start:].astype(np.float64)
    n_in = masks.sum(axis=0)[:, None]
    n_out, k_in = len(masks) - n_in, masks.T @ right
    p_in, p_out = k_in / n_in, (right.sum(axis=0) - k_in) / n_out
    truth, variance = p_in - p_out, p_in * (1 - p_in) / n_in + p_out * (1 - p_out) / n_out
    judge = Judge(truth, variance, np.flatnonzero(truth.max(axis=0) >= 0.05))
    print(
        f"digits: truth from {len(masks):,} models; {len(judge.strong)} test examples with a pair at .05 or more"
    )
    looks = [n for n in (25, 50, 100, 200, 400, 800, 1600, 3200) if n <= start]
    plain = {n: judge.row(np.nan_to_num(raw_of(runs, slice(n)))) for n in looks}
    print("                " + "  ".join(f"{name:>11}" for name in plain[looks[0]]) + "     cover  cover 500")
    for n, row in plain.items():
        print(f"plain {n:9}  " + "  ".join(f"{value:11.3f}" for value in row.values()))
    met = True
    for n, (informed, deviation, facts, certified) in found.items():
        row = judge.row(informed)
        inside = np.abs(informed - truth) <= LEVEL_Z * np.sqrt(deviation**2 + variance)
        first = np.argsort(-informed.ravel())[:FIRST]
        cover = float(inside.mean()), float(inside.ravel()[first].mean())
        print(
            f"informed {n:6}  "
            + "  ".join(f"{v:11.3f}" for v in row.values())
            + f"     {cover[0]:.3f}  {cover[1]:.3f}"
        )
        equal = {name: models_of(plain, name, value) for name, value in row.items() if name != "error"}
        print("  like plain   " + "  ".join(f"{text:>11}" for text in ("", *equal.values())))
        truths = np.array([truth[pair] for pair in certified])
        every = all_found(runs, n)
        print(
            f"  gain {facts.get('prior_gain', 0):.0%}; screened: {len(certified)} pairs at q <= {FDR}, true influence "
            f"{truths.mean() if len(truths) else 0:.3f} on average, {int((truths < 0.01).sum())} below .01; all pairs: {every}",
            flush=True,
        )
        met &= cover[0] >= 0.93 and cover[1] >= 0.93
    print(f"target coverage of .93 or more: {'met' if met else 'MISSED'}")
    return met


def all_found(runs: Runs, n_models: int) -> int:
    """Return how many pairs the tests of all pairs find, one-sided as those that are screened."""
    outcomes = outcomes_of(runs, n_models, np.ones(n_models, dtype=np.int8))
    n_train, n_test = runs.masks.shape[1], runs.right.shape[1]
    every = tested(
        outcomes, np.repeat(np.arange(n_train), n_test), np.tile(np.arange(n_test), n_train), "helps"
    )
    return int((q_values(every.p) <= FDR).sum())


def models_of(plain: dict[int, dict[str, float]], name: str, value: float) -> str:
    """Return how many plain models are as good, between the numbers that were judged."""
    counts = list(plain)
    quality = np.maximum.accumulate([plain[n][name] for n in counts])
    if value > quality[-1]:
        return f"> {counts[-1]:,}"
    return f"{np.exp(np.interp(value, quality, np.log(counts))):,.0f}"


def add_commands(commands: Any) -> None:
    """Add the subcommands to a parser."""
    parser = commands.add_parser("harm", help="priors that are noise or adversarial, simulated")
    parser.add_argument("--stores", type=int, default=40)
    parser.set_defaults(run=harm)
    parser = commands.add_parser("digits", help="digits with flipped labels: ranks, coverage, screened tests")
    parser.add_argument("--models", type=int, default=1500)
    parser.add_argument("--judged", type=int, nargs="+", default=[50, 100])
    parser.set_defaults(run=digits)
    parser = commands.add_parser("cost", help="CPU and memory on a synthetic store with sketches")
    parser.add_argument("--models", type=int, default=4000)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--slice", type=int, default=2, help="blocks of 512 test examples to search")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the store is made, or is")
    parser.set_defaults(run=cost)
