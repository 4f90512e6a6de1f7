"""What does ``memdb import`` cost, beside writing the same arrays by hand, or beside another checkout?

Makes a file of each kind at random: runs in an .npz, under Feldman and Zhang's names and those of the plain format, a
folder of datamodels, the strongest pairs in an .npz, memorization in a CSV file. Each is imported by whole processes that
take turns with a careful writer, which reads the file by NumPy or Arrow, makes the checks that no import should omit
(values, subset sizes, a hash for each model, no pair twice), packs bits, and writes the same arrays by Zarr with the same
codecs; it writes no manifest, lists no objects and does not look a second time at what is there.

    python scripts/bench_import.py
    python scripts/bench_import.py --against ../before
    python scripts/bench_import.py --models 2000 --train 50000 --test 10000 --rounds 3

Expect a minute. Prints CPU seconds (medians) and ratios, on one thread. With --against, a folder with another checkout's
``memdb`` and ``schemas``: the same import by that one, if it reads such files. Target: at most 3 times the careful writer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_startup import ROOT, cpu_seconds, import_of, of, told

TARGET = 3.0
CAREFUL = """
import hashlib, sys
import numpy as np, zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

kind, source, target = sys.argv[1:]
group = zarr.create_group(target)

def keep(name, values):
    made = group.create_array(
        name, shape=values.shape, dtype=values.dtype, chunks=values.shape, filters=(), serializer="auto",
        compressors=([] if values.dtype == np.uint8 else [ZstdCodec()]) + [Crc32cCodec()],
    )
    made[...] = values

def runs(mask, outcomes):
    sizes = mask.sum(axis=1)
    assert (0 < sizes).all() and (sizes < mask.shape[1]).all()
    rows = [np.packbits(bits, axis=1, bitorder="little") for bits in (mask, *outcomes.values())]
    group.attrs["models"] = [hashlib.sha256(b"".join(map(bytes, of))).hexdigest() for of in zip(*rows)]
    for name, bits in {"mask": mask, **outcomes}.items():
        keep(name, np.packbits(np.ascontiguousarray(bits.T), axis=1, bitorder="little"))

def finite(values, least, most):
    assert np.isfinite(values).all() and (values >= least).all() and (values <= most).all()
    return values

if kind in {"correctness", "plain"}:
    held = np.load(source)
    mask, train, test = (held[name] for name in held.files)
    assert mask.dtype == train.dtype == test.dtype == bool and mask.shape == train.shape
    runs(mask, {"train": train, "test": test})
elif kind == "datamodels":
    mask = np.load(f"{source}/train_masks.npy")
    margins = {n: np.load(f"{source}/{n}_margins.npy") for n in ("train", "test")}
    assert not any(np.isnan(values).any() for values in margins.values())
    runs(mask, {name: values > 0 for name, values in margins.items()})
    for name, values in margins.items():
        keep(f"{name}_margin", np.ascontiguousarray(values.T))
elif kind == "pairs":
    held = np.load(source)
    train, test = held["tr_idx"].astype(np.int32), held["tt_idx"].astype(np.int32)
    order = np.lexsort((train, test))
    pairs = test[order].astype(np.int64) << 32 | train[order]
    assert (pairs[1:] != pairs[:-1]).all() and train.min() >= 0 and test.min() >= 0
    memorized, first, place = np.unique(train, return_index=True, return_inverse=True)
    memorization = finite(held["mem"][first], -1, 1)
    assert (memorization[place] == held["mem"]).all()
    keep("memorized", memorized), keep("memorization", memorization)
    keep("train_id", train[order]), keep("test_id", test[order])
    keep("influence", finite(held["infl"][order], -1, 1))
else:
    from pyarrow import csv
    table = csv.read_csv(source)
    memorized, order = np.unique(table["train_id"].to_numpy(), return_index=True)
    assert len(memorized) == len(table)
    keep("memorization", finite(table["memorization"].to_numpy()[order], -1, 1))
"""


@dataclass(frozen=True)
class Case:
    """A file, and the options for what it does not say."""

    kind: str
    name: str
    options: tuple[str, ...] = ()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=2_000)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout to compare with")
    options = parser.parse_args()
    sizes = "--n-train", str(options.train), "--n-test", str(options.test)
    cases = (
        Case("correctness", "correctness.npz"),
        Case("plain", "plain.npz"),
        Case("datamodels", "datamodels"),
        Case("pairs", "pairs.npz", sizes),
        Case("memorization", "memorization.csv"),
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode", "MEMDB_CACHE_DIR": "none"}
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.chdir(folder)
        write_files(options)
        print(
            f"{options.models} models, {options.train} + {options.test} examples, {options.pairs} pairs; CPU "
            f"seconds, medians of {options.rounds} processes each, load {os.getloadavg()[0]:.1f}"
        )
        return told(
            f"CPU at most {TARGET:g} times a careful writer's",
            max(compared(case, options.against, options.rounds) for case in cases),
            TARGET,
        )


def write_files(options: argparse.Namespace) -> None:
    """Write the files, drawn at random, into this folder."""
    rng = np.random.default_rng(0)
    shapes = {"train": (options.models, options.train), "test": (options.models, options.test)}
    mask = rng.permuted(
        np.broadcast_to(np.arange(options.train) < 0.7 * options.train, shapes["train"]), axis=1
    )
    right: dict[str, Any] = {name: rng.random(shape) < 0.8 for name, shape in shapes.items()}
    theirs: dict[str, Any] = {f"{name}set_correctness": values for name, values in right.items()}
    np.savez("correctness.npz", trainset_mask=mask, **theirs)
    np.savez("plain.npz", mask=mask, **{f"{name}_correct": values for name, values in right.items()})
    Path("datamodels").mkdir()
    np.save("datamodels/train_masks.npy", mask)
    for name, shape in shapes.items():
        np.save(f"datamodels/{name}_margins.npy", rng.normal(1, 1, shape).astype(np.float16))
    train, test = np.divmod(
        rng.choice(options.train * options.test, options.pairs, replace=False), options.test
    )
    memorization, influence = rng.random(options.train), rng.uniform(-0.5, 0.5, options.pairs)
    np.savez("pairs.npz", tr_idx=train, tt_idx=test, infl=influence, mem=memorization[train])
    lines = (f"{row},{score!r}\n" for row, score in enumerate(memorization.tolist()))
    Path("memorization.csv").write_text("train_id,memorization\n" + "".join(lines))


def compared(case: Case, against: Path | None, n_rounds: int) -> float:
    """Print what importing a file took each of them; return our ratio to the careful writer."""
    words = ["import", case.name, *case.options, "--store"]
    commands = {
        "memdb": of(ROOT, words),
        "by hand": [sys.executable, "-c", CAREFUL, case.kind, case.name],
        "import numpy, zarr": import_of("numpy, zarr"),
    }
    if against is not None:
        commands["before"] = of(against, words)
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(n_rounds + 1):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                target = [] if name.startswith("import") else [f"{folder}/new.zarr"]
                try:
                    taken[name].append(cpu_seconds([*command, *target]))
                except subprocess.CalledProcessError:
                    if name != "before":
                        raise
        if number == 0:  # which fills the file cache
            taken = {name: [] for name, first in taken.items() if first}
            commands = {name: commands[name] for name in taken}
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    ratio = medians["memdb"] / medians["by hand"]
    said = ", ".join(f"{name} {median:.2f} s" for name, median in medians.items())
    if "before" in medians:
        said += f", {medians['memdb'] / medians['before']:.2f} times before"
    print(f"{case.kind:13}{said}, {ratio:.2f} times by hand", flush=True)
    return ratio


if __name__ == "__main__":
    sys.exit(main())
