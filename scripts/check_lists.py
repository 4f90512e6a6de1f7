"""Are memdb's answers right about models whose every score is known, from training to the ranked list?

A recipe draws outcomes with P[right on z | subset] = base_z + sum over j of effect_jz (m_j - p), where m_j says whether
j is in the subset and p is the subset fraction. Subsets have an exact size, so that who has i lacks another example,
any one as likely: influence(i, z) is effect_iz less the mean effect of the other examples, exactly. The effects on
each z sum to 0, so a pair without effect has an influence of 0 and its example is independent of the outcome. In
truth 1 % of the examples influence a test example, all of its own class, and 10 % of them are memorized. Confidences
are drawn from a Beta distribution with the same mean, and a model is right with the chance that it says.

Many stores are made, trained and asked through the Python interface, as a user would:

fixed         share of intervals that hold the truth, over all pairs, for both outcomes
selected      share of the intervals in the first k rows of a list that miss, mean over lists
simultaneous  share of lists with any interval among all rows that misses
q_value       share of false findings among rows with a q-value below .1, mean over lists
n_null        how many pairs without effect reach the weakest row of another such list, against what that list says
order         share of the first k that are true, by `shrunk` and by the score itself; and how far each is off
anytime       share of pairs whose interval misses at any look, and the worst look's false findings, while models
              are added; beside it the false findings of q-values made for one look, which may not be looked at so

    python scripts/check_lists.py
    python scripts/check_lists.py --stores 4 --test 24 --peeked-stores 2

Expect about three minutes on two cores, and all targets met; the exit code is 1 if one is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import memdb

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]
FRACTION = 0.7
N_CLASSES = 4
CONCENTRATION = 3.0  # of the Beta distribution of confidences
FDR = 0.1
STRONG = 0.15
FIRST_LOOK = 100  # models at which lists without effect are counted: later, nothing reaches STRONG


@dataclass(frozen=True)
class Sizes:
    """How much is simulated: stores, examples, models."""

    stores: int = 12
    train: int = 400
    test: int = 32
    models: int = 300
    peeked_stores: int = 6
    peeked_test: int = 10
    peeked_models: int = 600
    look_every: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Truth:
    """What the models of one store do: chances of being right and how the subset moves them."""

    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    base: Mapping[str, Numbers]  # of each set, [examples]
    effects: Numbers  # [train, test]
    own: Numbers  # of each training example on itself, [train]

    @property
    def influence(self) -> Numbers:
        """The true influences, [train, test]."""
        return swap_contrast(self.effects)

    def chances(self, masks: Flags) -> dict[str, Numbers]:
        """Return the chance of every model to be right, of each set [models, examples]."""
        centred = masks - masks.mean(axis=1, keepdims=True)
        found = {
            "train": self.base["train"] + centred * self.own,
            "test": self.base["test"] + centred @ self.effects,
        }
        outside = max(max(-chances.min(), chances.max() - 1) for chances in found.values())
        assert outside < 1e-9, (
            f"no probability: {outside:g} outside 0 to 1, and clipping would change the truth"
        )
        return {name: chances.clip(0, 1) for name, chances in found.items()}


def swap_contrast(effects: Numbers) -> Numbers:
    """Return what exact-size subsets estimate of effects [train, ...]: own effect less the others' mean."""
    contrast: Numbers = effects - (effects.sum(axis=0) - effects) / (len(effects) - 1)
    return contrast


def draw_truth(random: np.random.Generator, n_train: int, n_test: int) -> Truth:
    """Draw the truth of one store; no training example influences the last quarter of the test examples, in pairs."""
    train_labels, test_labels = np.arange(n_train) % N_CLASSES, np.arange(n_test) % N_CLASSES
    n_pairs = n_test // 8
    strength = random.uniform(0.35, 0.5, n_test)
    base = random.uniform(strength, 1 - strength)
    base[n_test - 2 * n_pairs :] = np.repeat(np.linspace(0.5, 0.9, n_pairs), 2)
    effects = np.zeros((n_train, n_test))
    half = max(1, n_train // 200)  # as many help as hurt
    shares = np.arange(half, 0, -1) / (half * (half + 1) / 2)
    for z in range(n_test - 2 * n_pairs):
        same = np.flatnonzero(train_labels == test_labels[z])
        chosen = random.choice(same, 2 * half, replace=False)
        effects[chosen, z] = strength[z] * np.concatenate([shares, -shares])
    own = np.where(random.random(n_train) < 0.1, random.uniform(0.2, 0.7, n_train), 0.0)
    own_base = random.uniform(FRACTION * own, 1 - (1 - FRACTION) * own)
    return Truth(train_labels, test_labels, {"train": own_base, "test": base}, effects, own)


class KnownChances:
    """The recipe: outcomes drawn with known probabilities, each model's from its own seed."""

    name = "known-chances"
    version = "1"

    def __init__(self, truth: Truth) -> None:
        self.options: dict[str, Any] = {}
        self._truth = truth

    def models_per_batch(self, _data: memdb.Dataset, _device: str) -> int:
        """Models a commit."""
        return 100

    def __call__(
        self, _data: memdb.Dataset, masks: Flags, seeds: NDArray[np.uint64], _run: memdb.Run
    ) -> dict[str, NDArray[Any]]:
        """Draw what models with these masks get right, and how sure they are."""
        found: dict[str, NDArray[Any]] = {}
        for name, chances in self._truth.chances(masks).items():
            confidence, right = np.empty(chances.shape), np.empty(chances.shape, dtype=np.bool_)
            for row, seed in enumerate(seeds):
                random = np.random.default_rng([int(seed), name == "test"])
                confidence[row] = _beta(random, chances[row])
                right[row] = random.random(chances.shape[1]) < confidence[row]
            with np.errstate(divide="ignore"):
                logits = np.log(confidence) - np.log1p(-confidence)
            found |= {f"{name}/correct": right, f"{name}/logit_confidence": logits}
        return found


def _beta(random: np.random.Generator, mean: Numbers) -> Numbers:
    inside = (mean > 0) & (mean < 1)
    usable = np.where(inside, mean, 0.5)
    drawn = random.beta(CONCENTRATION * usable, CONCENTRATION * (1 - usable))
    return np.where(inside, drawn, mean)


@dataclass(frozen=True)
class Listing:
    """One ranked list: how to ask for it, and the truth of everything in it."""

    ask: Callable[..., dict[str, Numbers]]
    score: str
    truth: Numbers  # [listed]
    affected: Flags  # [listed]


def rows_of(relation: Any) -> dict[str, Numbers]:
    """Return a relation's columns as arrays."""
    return {name: np.asarray(values) for name, values in relation.fetchnumpy().items()}


def listings(db: memdb.Database, truth: Truth, outcome: str) -> Iterator[Listing]:
    """Yield the lists that are judged: memorization, and the influences on each test example that has some."""

    def asking(verb: Callable[..., Any], **named: Any) -> Callable[..., dict[str, Numbers]]:
        return lambda **options: rows_of(verb(outcome=outcome, **named, **options))

    yield Listing(asking(db.top_memorized), "memorization", truth.own, truth.own != 0)
    influence = truth.influence
    for z in np.flatnonzero((truth.effects != 0).any(axis=0)).tolist():
        verb = asking(db.top_influence, test_id=z, direction="both")
        yield Listing(verb, "influence", influence[:, z], truth.effects[:, z] != 0)


def judge(listing: Listing) -> dict[str, float]:
    """Return what is wrong with one list, after one look at a number of models fixed beforehand."""
    n_ranked, k = len(listing.truth), int(listing.affected.sum())
    every = listing.ask(k=n_ranked, order="q_value", interval="simultaneous")
    found = every["train_id"][every["q_value"] < FDR]
    wrong = {
        "any_missed": float(missed(every, listing.truth).any()),
        "false_found": false_share(found, listing),
        "power": float(listing.affected[found].sum() / k),
    }
    for order in ("shrunk", listing.score):
        top = listing.ask(k=k, order=order)
        name, ids = order if order == "shrunk" else "raw", top["train_id"]
        sign = np.sign(top[listing.score])
        wrong[f"precision_{name}"] = float(listing.affected[ids].mean())
        wrong[f"excess_{name}"] = float((sign * (top[order] - listing.truth[ids])).mean())
        wrong[f"missed_{name}"] = float(missed(top, listing.truth).mean())
    return wrong


def missed(rows: Mapping[str, Numbers], truth: Numbers) -> Flags:
    """Tell which rows have an interval without the truth in it."""
    true = truth[rows["train_id"]]
    outside: Flags = (true < rows["lo"]) | (true > rows["hi"])
    return outside


def false_share(found: NDArray[Any], listing: Listing) -> float:
    return float((~listing.affected[found]).sum() / max(1, len(found)))


def chance_counts(db: memdb.Database, truth: Truth) -> tuple[float, int]:
    """Return how many pairs without effect lists say chance gives, and how many twins of these lists have."""
    unaffected = np.flatnonzero((truth.effects == 0).all(axis=0)).tolist()
    said, there = 0.0, 0
    for one, twin in zip(unaffected[::2], unaffected[1::2], strict=True):
        strong = int((rows_of(db.influence(test_id=one))["influence"] >= STRONG).sum())
        if strong:
            shown = rows_of(db.top_influence(test_id=one, k=strong, order="influence"))
            said += float(shown["n_null"][0])
            other = rows_of(db.influence(test_id=twin))["influence"]
            there += int((other >= shown["influence"].min() - 1e-12).sum())
    return said, there


def made(folder: str, truth: Truth, seed: int) -> memdb.Database:
    """Create a store of examples whose content does not matter."""
    n_train, n_test = truth.effects.shape
    data = memdb.Dataset(np.arange(n_train), truth.train_labels, np.arange(n_test), truth.test_labels)
    return memdb.init(f"{folder}/{seed}.zarr", data, KnownChances(truth), subset_fraction=FRACTION, seed=seed)


def look_once(sizes: Sizes, folder: str) -> dict[str, float]:
    """Return the figures of stores that are asked after a number of models fixed beforehand."""
    covered: dict[str, list[float]] = defaultdict(list)
    lists: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    said, there = 0.0, 0
    for number in range(sizes.stores):
        truth = draw_truth(np.random.default_rng([sizes.seed, 0, number]), sizes.train, sizes.test)
        with made(folder, truth, number) as db:
            db.train(seeds=range(FIRST_LOOK))
            more, seen = chance_counts(db, truth)
            said, there = said + more, there + seen
            db.train(seeds=range(FIRST_LOOK, sizes.models))
            for outcome in ("correct", "confidence"):
                for z, true in enumerate(truth.influence.T):
                    pairs = rows_of(db.influence(test_id=z, interval="fixed", outcome=outcome))
                    covered[outcome].append(1 - float(missed(pairs, true).mean()))
                for listing in listings(db, truth, outcome):
                    for name, value in judge(listing).items():
                        lists[outcome][name].append(value)
    figures = {"n_pairs": float(sizes.stores * sizes.train * sizes.test), "said": said, "there": float(there)}
    for outcome, values in covered.items():
        figures[f"covered, {outcome}"] = float(np.mean(values))
        figures |= {f"{name}, {outcome}": float(np.mean(every)) for name, every in lists[outcome].items()}
    return figures | {"n_lists": float(len(lists["correct"]["power"]))}


def look_again(sizes: Sizes, folder: str) -> dict[str, float]:
    """Return the figures of stores that are asked again and again while models are added."""
    ever: list[float] = []
    worst: dict[str, list[float]] = {"once": [], "anytime": []}
    found_in_the_end: list[float] = []
    looks = range(sizes.look_every, sizes.peeked_models + 1, sizes.look_every)
    for number in range(sizes.peeked_stores):
        truth = draw_truth(np.random.default_rng([sizes.seed, 1, number]), sizes.train, sizes.peeked_test)
        with made(folder, truth, 10**6 + number) as db:
            n_lists = 1 + int((truth.effects != 0).any(axis=0).sum())
            gone = np.zeros((n_lists, sizes.train), dtype=np.bool_)
            false: dict[str, Numbers] = {fdr: np.zeros((n_lists, len(looks))) for fdr in worst}
            power = np.zeros(n_lists)
            for look, n_models in enumerate(looks):
                db.train(seeds=range(n_models - sizes.look_every, n_models))
                for at, listing in enumerate(listings(db, truth, "correct")):
                    for fdr in worst:
                        rows = listing.ask(k=sizes.train, order="q_value", interval="anytime", fdr=fdr)
                        found = rows["train_id"][rows["q_value"] < FDR]
                        false[fdr][at, look] = false_share(found, listing)
                    gone[at, rows["train_id"][missed(rows, listing.truth)]] = True
                    power[at] = listing.affected[found].sum() / listing.affected.sum()
            ever.append(float(gone.mean()))
            found_in_the_end.append(float(power.mean()))
            for fdr, shares in false.items():
                worst[fdr].append(float(shares.max(axis=1).mean()))
    return {
        "ever_missed": float(np.mean(ever)), "worst_once": float(np.mean(worst["once"])),
        "worst_anytime": float(np.mean(worst["anytime"])), "power_anytime": float(np.mean(found_in_the_end)),
    }  # fmt: skip


def check(sizes: Sizes) -> tuple[dict[str, float], dict[str, bool]]:
    """Simulate and return all figures, and of each target whether it is met."""
    with tempfile.TemporaryDirectory() as folder:
        figures = look_once(sizes, folder) | look_again(sizes, folder)
    f = figures
    met: dict[str, bool] = {}
    for outcome in ("correct", "confidence"):
        met |= {
            f"fixed covers 94 to 97 %, {outcome}": 0.94 <= f[f"covered, {outcome}"] <= 0.97,
            f"selected misses at most 5 % of the rows shown, {outcome}": f[f"missed_shrunk, {outcome}"]
            <= 0.05,
            f"simultaneous misses in at most 5 % of the lists, {outcome}": f[f"any_missed, {outcome}"]
            <= 0.05,
            f"at most 12 % false among q below .1, {outcome}": f[f"false_found, {outcome}"] <= 0.12,
            f"shrunk finds no fewer true ones, {outcome}": f[f"precision_shrunk, {outcome}"]
            >= f[f"precision_raw, {outcome}"],
            f"shrunk does not overstate as the score does, {outcome}": f[f"excess_shrunk, {outcome}"]
            <= min(0.01, f[f"excess_raw, {outcome}"]),
        }
    return figures, met | {
        "n_null is within 10 % of what chance gives": abs(f["said"] / max(1.0, f["there"]) - 1) <= 0.1,
        "anytime ever misses for at most 5 % of the pairs": f["ever_missed"] <= 0.05,
        "at most 10 % false at the worst look, q made for it": f["worst_anytime"] <= 0.1,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in vars(Sizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, metavar="N")
    sizes = Sizes(**vars(parser.parse_args()))
    started = time.perf_counter()
    figures, met = check(sizes)
    for name, value in figures.items():
        print(f"{name:32} {value:12,.4f}")
    print(f"\n{time.perf_counter() - started:.0f} seconds")
    for target, is_met in met.items():
        print(f"target {target}: {'met' if is_met else 'MISSED'}")
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
