"""Make the stores of format 1 that tests read for ever, or write down what they answer.

    python scripts/make_format_1.py            # once, in November 2026: never again while the format is 1
    python scripts/make_format_1.py --answers  # after a question was added to tests/support/format_1.py

Models, masks and outcomes are functions of the seeds below; identifiers and times are drawn. Together the stores
hold whatever format 1 can hold, and `git diff` after ``--answers`` shows any answer that changed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import memdb

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support import format_1

PLACE = Path(tempfile.gettempdir()) / "memdb-format-1"  # is named in the extension's manifest
OUTCOMES = ("correct", "logit_confidence", "cumulative_loss", "first_learned")


def make(place: Path) -> None:
    """Make all stores in a folder."""
    trained = memdb.init(str(place / "trained.zarr"), **format_1.training(), seed=7, outcomes=OUTCOMES)
    trained.train(seeds=range(8), compact=False)
    trained.compact()
    trained.train(seeds=range(8, 30), compact=False)
    trained.compact()
    extension = memdb.extend(str(place / "extension.zarr"), trained.url, **format_1.training(), seed=8)
    trained.publish(str(place / "published.zarr"), include=("bits", "confidence", "thumbnails"))
    trained.retract([trained.snapshot.models[3][1].model_id], "a faulty disk")
    trained.train(seeds=range(30, 42), compact=False)
    trained.compact()
    trained.train(seeds=range(42, 53), compact=False)
    commit_twice(trained, seed=53)
    trained.retract([trained.snapshot.models[-2][1].model_id], "the wrong data")
    for name, arrays in published_scores().items():
        np.savez(place / f"{name}.npz", **arrays)
        memdb.import_file(place / f"{name}.npz", trained.url)
    credit = memdb.Credits("Ants, bees, cats", ("A. Author",), "CC0-1.0", "Author 2026")
    trained.publish(str(place / "published.zarr"), credit=credit)

    other = memdb.init(str(place / "other.zarr"), **format_1.training(), seed=9, outcomes=OUTCOMES[:2])
    other.train(seeds=range(5), compact=False)
    merged = memdb.merge(str(place / "merged.zarr"), [other, trained]).database
    merged.train(seeds=range(50, 54), compact=False, **format_1.training(confident=False))
    merged.compact()
    merged.train(seeds=range(54, 56), compact=False, **format_1.training())

    extension.train(seeds=range(6), compact=False)
    extension.compact()
    extension.update()
    extension.train(seeds=range(6, 18), compact=False)
    set_one_aside(extension)

    trained.export(place / "lira", "lira")
    memdb.import_file(place / "lira", str(place / "unseen.zarr"), name="unseen", recipe="somebody's")
    np.savez(place / "datamodels.npz", **datamodels())
    memdb.import_file(place / "datamodels.npz", str(place / "margins.zarr"), name="margins")
    sizes = {"n_train": format_1.N_TRAIN, "n_test": format_1.N_TEST}
    memdb.import_file(place / "classwise.npz", str(place / "scores.zarr"), name="alone", **sizes)


def commit_twice(db: memdb.Database, seed: int) -> None:
    """Commit one model twice, as two workers do that know nothing of each other."""
    store = Path(db.url)
    twin = shutil.copytree(store, store.with_name("twin.zarr"))
    known = {path.name for path in (store / "segments").iterdir()}
    for url in (store, twin):
        with memdb.open(str(url)) as one:
            one.train(seeds=[seed], compact=False, **format_1.training())
    for segment in (twin / "segments").iterdir():
        if segment.name not in known:
            shutil.copytree(segment, store / "segments" / segment.name)
    db.refresh()


def set_one_aside(db: memdb.Database) -> None:
    """Damage one segment of a store, and let `verify` set it aside."""
    segments = (path for path in Path(db.url, "segments").iterdir() if path.is_dir())
    newest = max(segments, key=lambda path: path.stat().st_mtime_ns)
    damaged = newest / "mask" / "c.0.0"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    report, repaired = db.verify(repair=True)
    assert report.damages
    assert repaired


def published_scores() -> dict[str, dict[str, Any]]:
    """Return scores without models as Feldman and Zhang published theirs: the strongest pairs, and by class."""
    rng = np.random.default_rng(5)
    labels = [np.arange(n) % 3 for n in (format_1.N_TRAIN, format_1.N_TEST)]
    memorization = rng.random(format_1.N_TRAIN)
    pairs = rng.permutation(format_1.N_TRAIN * format_1.N_TEST)[:60]
    train, test = pairs // format_1.N_TEST, pairs % format_1.N_TEST
    classwise = {"tr_mem": memorization, "tr_labels": labels[0], "tt_labels": labels[1]}
    for label in range(3):
        rows, columns = (np.flatnonzero(y == label) for y in labels)
        classwise |= {
            f"tr_classidx_{label}": rows,
            f"tt_classidx_{label}": columns,
            f"infl_matrix_class{label}": rng.uniform(-0.2, 0.6, (len(rows), len(columns))),
        }
    theirs = {"tr_idx": train, "tt_idx": test, "infl": rng.uniform(0.15, 0.6, 60), "mem": memorization[train]}
    return {"theirs": theirs, "classwise": classwise}


def datamodels() -> dict[str, Any]:
    """Return subsets and margins as released datamodels have them."""
    rng = np.random.default_rng(6)
    masks = np.stack([rng.permutation(format_1.N_TRAIN) < format_1.N_TRAIN // 2 for _ in range(16)])
    sizes = {"train": format_1.N_TRAIN, "test": format_1.N_TEST}
    margins = {f"{name}_margins": rng.normal(0.5, 1, (16, n)).astype(np.float32) for name, n in sizes.items()}
    return {"train_masks": masks, **margins}


def pack(place: Path) -> None:
    """Pack the stores into one small file, without owners or times."""

    def plain(item: tarfile.TarInfo) -> tarfile.TarInfo:
        item.mtime = item.uid = item.gid = 0
        item.uname = item.gname = ""
        item.mode = 0o755 if item.isdir() else 0o644
        return item

    format_1.HERE.mkdir(parents=True, exist_ok=True)
    with tarfile.open(format_1.ARCHIVE, "w:xz", preset=9) as tar:
        for name in format_1.COMMANDS:
            tar.add(place / f"{name}.zarr", f"{name}.zarr", filter=plain)
    print(f"{format_1.ARCHIVE}: {format_1.ARCHIVE.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--answers", action="store_true", help="ask the stores that are there")
    if not parser.parse_args().answers:
        if format_1.ARCHIVE.exists():
            parser.error(f"{format_1.ARCHIVE} is there: stores of a released format are never made again")
        PLACE.mkdir()
        with mock.patch("platform.node", return_value="node1"):
            make(PLACE)
        pack(PLACE)
        shutil.rmtree(PLACE)
    with tempfile.TemporaryDirectory() as folder:
        format_1.unpack(Path(folder))
        format_1.write(Path(folder))


if __name__ == "__main__":
    main()
