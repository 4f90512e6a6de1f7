"""One file that shows a store in any browser, without a network: the page, its numbers and its pictures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.addresses import shown
from memdb.errors import InvalidInputError
from memdb.files import writing
from memdb.format import layout
from memdb.look.partners import NOBODY, SHOWN, Partners, partners_of
from memdb.query.arrow import values_of
from memdb.query.intervals import IntervalSpec
from memdb.query.options import Order, RankedQuery
from memdb.query.questions import ModelAnswers, info
from memdb.query.relations import Relations
from memdb.render.sheets import COLUMNS, TILES, PicturesOf, mime, sheets, tile_size
from memdb.sharing.tables import counts_of
from memdb.store.published_arrays import COUNTED

SCRIPTS = ("statistics.js", "data.js", "plane.js", "grid.js", "example.js", "page.js")
LONGEST_NAME = 200  # characters of a key or class name that the page keeps
MOST_PICTURES = 20_000  # of each set
SHOWN_FACTS = (
    "store_id", "dataset", "recipe", "recipe_version", "subset_fraction", "n_train", "n_test", "n_models",
    "train_accuracy", "out_accuracy", "test_accuracy", "mean_half_width", "created_at",
)  # fmt: skip

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written: its size in bytes, how many pictures it has, or why it has none."""

    path: Path
    size: int
    n_pictures: int
    without_pictures: str = ""


def write_report(
    path: Path,
    relations: Relations,
    level: float,
    pictures: Mapping[str, PicturesOf],
    progress: Progress,
) -> WrittenReport:
    """Write a report of the models of ``relations``, with the pictures of some sets.

    Raises:
        InvalidInputError: the level is not a probability, or the path does not end in .html.
        StorageError: the file could not be written.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise InvalidInputError(f"{path} does not end in .html", hint="name one, such as report.html")
    alpha = IntervalSpec("anytime", level).parameters()["alpha"]
    ranks, estimates = _ranked(relations, level)
    partners = partners_of(relations, ranks, progress)
    facts = _facts(relations, level) | {"alpha": alpha, "shown": SHOWN}
    orders = {layout.TRAIN: ranks, layout.TEST: _hardest_first(relations)}
    orders = {name: order[:MOST_PICTURES] for name, order in orders.items() if name in pictures}
    facts["pictures"] = {name: _described(pictures[name].shape) for name in orders}
    arrays = _arrays(relations, partners) | estimates
    arrays |= {f"{name}/order": _packed(order) for name, order in orders.items()}
    n_all, done = sum(map(len, orders.values())), 0
    with writing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        before, after = _document(facts["dataset"]).split("<!-- data -->")
        file.write(before)
        file.write(_inert("facts", _json(facts)))
        file.writelines(_inert(name, f"{a.dtype.name} {_base64(a.tobytes())}") for name, a in arrays.items())
        for name, order in orders.items():
            for number, sheet in enumerate(sheets(pictures[name], order.tolist())):
                file.write(_inert(f"{name}/sheet/{number}", _base64(sheet)))
                done = min(done + TILES, n_all)
                progress(done, n_all)
        file.write(after)
    return WrittenReport(path, path.stat().st_size, n_all)


def _ranked(relations: Relations, level: float) -> tuple[NDArray[np.int32], dict[str, NDArray[Any]]]:
    """Return training examples as `top-memorized` ranks them, and what it says of each, by id."""
    n_train = relations.snapshot.manifest.train.n_examples
    found = {name: np.full(n_train, np.nan) for name in ("shrunk", "q_value")}
    ranks = np.arange(n_train, dtype=np.int32)
    if relations.snapshot.n_models and n_train:
        query = RankedQuery(n_train, Order(), IntervalSpec("selected", level))
        rows = ModelAnswers(relations).top_memorized(None, query)
        ranks = values_of(rows.column("train_id")).astype(np.int32)
        for name, values in found.items():
            values[ranks] = rows.column(name).to_numpy()
    return ranks, {f"train/{name}": values for name, values in found.items()}


def _hardest_first(relations: Relations) -> NDArray[np.int32]:
    """Return test examples by how many models are right on them, ascending."""
    counts = dict(zip(COUNTED[layout.TEST], counts_of(relations, layout.TEST), strict=True))
    return np.argsort(counts["n_correct"], kind="stable").astype(np.int32)


def _arrays(relations: Relations, partners: Mapping[str, Partners]) -> dict[str, NDArray[Any]]:
    """Return counts of all examples and lists of some, packed, by the names that the page knows."""
    found = {}
    for name, columns in COUNTED.items():
        for column, values in zip(columns, counts_of(relations, name), strict=True):
            found[f"{name}/{column}"] = _packed(values)
        lists = partners[name]
        found[f"{name}/list/owners"] = _packed(lists.owners)
        found[f"{name}/list/ids"] = _packed(lists.ids - NOBODY)  # 0 is padding
        found[f"{name}/list/k_in"] = _packed(lists.k_in)
        found[f"{name}/list/q_value"] = lists.q_values
    return found


def _packed(values: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """Return numbers from 0 in the narrowest type of the page that holds them, little-endian."""
    largest = int(values.max(initial=0))
    kind = next(kind for kind in ("<u1", "<u2", "<u4") if largest <= np.iinfo(kind).max)
    return np.ascontiguousarray(values, dtype=kind)


def _facts(relations: Relations, level: float) -> dict[str, Any]:
    row = info(relations, IntervalSpec("anytime", level)).to_pylist()[0]
    snapshot = relations.snapshot
    found = {name: row[name] for name in SHOWN_FACTS}
    found["created_at"] = str(found["created_at"])
    found |= {"store": shown(snapshot.url), "written_at": f"{datetime.now(UTC):%Y-%m-%d}"}
    found |= {"level": level, "models_sha256": snapshot.models_sha256, "snapshot": snapshot.number}
    for name in COUNTED:
        examples = relations.examples[name]
        is_numbered = examples.keys == [str(row) for row in range(len(examples))]
        found[f"{name}_keys"] = None if is_numbered else [_cut(key) for key in examples.keys]
    found["class_names"] = [_cut(name) for name in relations.class_names]
    return found


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}\u2026"


def _described(shape: tuple[int, int, int]) -> dict[str, Any]:
    height, width = tile_size(shape)
    return {
        "height": shape[0], "width": shape[1], "tile_height": height, "tile_width": width,
        "columns": COLUMNS, "tiles": TILES, "mime": mime(shape),
    }  # fmt: skip


def _document(title: str) -> str:
    """Return the page with its style and scripts in it, and the place where its data goes.

    Nothing but these scripts may run, whatever the data says: the policy has their hashes.
    """
    page = resources.files("memdb.look") / "page"
    style = (page / "page.css").read_text("utf-8")
    script = "".join((page / name).read_text("utf-8") for name in SCRIPTS)
    policy = (
        f"default-src 'none'; img-src blob:; style-src '{_sha256(style)}'; script-src '{_sha256(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    html = (page / "index.html").read_text("utf-8")
    for mark, text in (
        ("<!-- policy -->", f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        ("<!-- title -->", f"<title>memdb: {_escaped(title)}</title>"),
        ("<!-- style -->", f"<style>{style}</style>"),
        ("<!-- script -->", f"<script>{script}</script>"),
    ):
        html = html.replace(mark, text)
    return html


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _sha256(text: str) -> str:
    return f"sha256-{_base64(hashlib.sha256(text.encode()).digest())}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _json(value: object) -> str:
    """Return JSON that no HTML parser sees a tag in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _inert(name: str, text: str) -> str:
    """Return an element that browsers keep as text."""
    return f'<script type="text/plain" id="{name}">{text}</script>\n'
