"""Do memdb's answers agree with ten lines of NumPy on the store's raw bits?

Nothing here imports memdb. The store is opened with plain Zarr; every block of the newest snapshot and every
segment that it does not cover is unpacked into booleans, excluding retracted models; scores and intervals are
recomputed from those. Then the installed ``memdb sql`` answers the same questions in a process of its own, and
the two are compared: every memorization, and the influence of every training example on some test examples,
with fixed and anytime intervals.

    python scripts/check_agreement.py STORE
    python scripts/check_agreement.py STORE --test-ids 3 42

Counts must be equal, scores agree to 1e-12, intervals to 1e-9, and NULL must be exactly where an example
was in every subset or in none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import zarr
from numpy.typing import NDArray

Columns = dict[str, NDArray[np.float64]]  # per training example; NaN is NULL
MEMDB = Path(sys.executable).with_name("memdb")
COUNTS = ("n_in", "n_out", "k_in", "k_out")
TOLERANCES = dict.fromkeys(COUNTS, 0.0) | {"score": 1e-12, "lo": 1e-9, "hi": 1e-9}
ALPHA = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, help="a local folder")
    parser.add_argument("--test-ids", type=int, nargs="+", help="5 spread over the test set if not given")
    options = parser.parse_args()

    mask, train_correct, test_correct = read_bits(options.store)
    n_test, n_models = test_correct.shape
    test_ids = options.test_ids or np.linspace(0, n_test - 1, 5).astype(int).tolist()
    questions = {"memorization": ("memorization FROM memorization", train_correct)}
    for test_id in test_ids:
        question = f"influence FROM influence WHERE test_id = {test_id}"
        questions[f"influence on test {test_id}"] = (question, test_correct[test_id])

    print(f"{options.store}: {n_models:,} models, {len(mask):,} training and {n_test:,} test examples")
    print("largest differences      interval   NULLs    counts     score        lo        hi")
    agree = True
    for name, (question, correct) in questions.items():
        for interval in ("fixed", "anytime"):
            ours = recomputed(mask, correct, interval)
            theirs = asked(options.store, question, interval, n_models)
            found = {column: difference(ours[column], theirs[column]) for column in TOLERANCES}
            agree &= all(found[column] <= limit for column, limit in TOLERANCES.items())
            counts = max(found[column] for column in COUNTS)
            shown = f"{counts:9.0f} {found['score']:9.1e} {found['lo']:9.1e} {found['hi']:9.1e}"
            print(f"{name:24} {interval:9} {np.isnan(ours['score']).sum():6} {shown}")
    assert not any(module.split(".")[0] == "memdb" for module in sys.modules)
    limits = "counts equal, scores to 1e-12, intervals to 1e-9, NULL where an arm is empty"
    print(f"target {limits}: {'met' if agree else 'MISSED'}")
    return 0 if agree else 1


def read_bits(store: Path) -> list[NDArray[np.bool_]]:
    """Return mask [train, model], correct on train [train, model] and on test [test, model]."""
    snapshots = sorted((store / "snapshots").glob("[0-9]*.json"), key=lambda path: int(path.stem))
    newest = json.loads(snapshots[-1].read_text()) if snapshots else {"blocks": [], "segments": []}
    groups = [store / "blocks" / block["block_id"] for block in newest["blocks"]]
    passed_over = set(newest["segments"])
    seen: set[str] = set()  # retracted models, and those read already
    for record in (store / "retractions").glob("*Z-*.json"):
        retraction = json.loads(record.read_text())
        seen.update(retraction["models"])
        passed_over.update(retraction["segments"])
    committed = sorted((store / "segments").glob("*/zarr.json"))  # written last: it is the commit
    groups += [path.parent for path in committed if path.parent.name not in passed_over]
    parts: dict[str, list[NDArray[np.bool_]]] = {"mask": [], "train/correct": [], "test/correct": []}
    for group in groups:
        about = json.loads((group / "zarr.json").read_text())["attributes"]["memdb"]
        ids = [model["model_id"] for model in about["models"]]
        first = [model_id not in seen for model_id in ids]  # a model committed again counts once
        seen.update(ids)
        for path, found in parts.items():
            packed = np.asarray(
                zarr.open_array(group / path, mode="r", zarr_format=3)[...]
            )  # [example, byte]; bit k of a row is model k
            unpacked = np.unpackbits(packed, axis=1, bitorder="little")[:, : about["n_models"]]
            found.append(unpacked.astype(bool)[:, first])
    return [np.concatenate(found, axis=1) for found in parts.values()]


def recomputed(mask: NDArray[np.bool_], correct: NDArray[np.bool_], interval: str) -> Columns:
    """Return counts, difference in means and interval; correct is [train, model], or [model]."""
    n_in, n_out = mask.sum(axis=1), (~mask).sum(axis=1)
    k_in, k_out = (mask & correct).sum(axis=1), (~mask & correct).sum(axis=1)
    counts = {"n_in": n_in, "n_out": n_out, "k_in": k_in, "k_out": k_out}
    columns = {name: values.astype(float) for name, values in counts.items()}
    with np.errstate(invalid="ignore", divide="ignore"):
        score = k_in / n_in - k_out / n_out
    score[(n_in == 0) | (n_out == 0)] = np.nan

    z = NormalDist().inv_cdf(1 - ALPHA / 2) if interval == "fixed" else anytime_z(mask.shape[1])
    a = z * z / 4
    m_in, m_out = (k_in + a) / (n_in + 2 * a), (k_out + a) / (n_out + 2 * a)
    v_in, v_out = m_in * (1 - m_in) / (n_in + 2 * a), m_out * (1 - m_out) / (n_out + 2 * a)
    half_width = z * np.sqrt(v_in + v_out)
    lo = np.maximum(-1, np.minimum(score, m_in - m_out - half_width))
    hi = np.minimum(1, np.maximum(score, m_in - m_out + half_width))
    return columns | {"score": score, "lo": lo, "hi": hi}


def anytime_z(t: int) -> float:
    g = -2 * np.log(ALPHA) + np.log(1 - 2 * np.log(ALPHA) - ALPHA**2) - ALPHA**2
    tau = t * g / 400
    return float(np.sqrt((1 + 1 / tau) * (np.log(1 + tau) - 2 * np.log(ALPHA))))


def asked(store: Path, question: str, interval: str, n_models: int) -> Columns:
    """Return what the command line answers, one row per training example in order."""
    score, relation = question.split(" ", 1)
    statement = (
        f"SELECT train_id, {score} AS score, lo, hi, n_in, n_out, k_in, k_out {relation} ORDER BY train_id"
    )
    arguments = ["sql", statement, "--store", str(store), "--interval", interval, "--format", "json"]
    answer = json.loads(subprocess.run([MEMDB, *arguments], check=True, capture_output=True).stdout)
    assert (answer["n_models"], answer["interval"], answer["level"]) == (n_models, interval, 1 - ALPHA)
    rows = answer["rows"]
    assert [row["train_id"] for row in rows] == list(range(len(rows)))
    return {name: np.array([row[name] for row in rows], dtype=float) for name in TOLERANCES}  # null is NaN


def difference(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Return the largest difference; infinite where only one is NULL."""
    if ours.shape != theirs.shape or (np.isnan(ours) != np.isnan(theirs)).any():
        return float("inf")
    return float(np.nanmax(np.abs(ours - theirs), initial=0.0))


if __name__ == "__main__":
    sys.exit(main())
