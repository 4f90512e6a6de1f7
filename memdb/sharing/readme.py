"""The README of a published copy: what it is, in words and numbers, for people who find it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from memdb.addresses import without_secrets
from memdb.environment import DISTRIBUTION
from memdb.format import layout
from memdb.format.published import Published
from memdb.format.score_table import ScoreTable
from memdb.format.snapshot_record import SnapshotRecord
from memdb.store.snapshot import Snapshot

HEADINGS = "#*_`<>[]|"
INTRODUCTION = """\
Predictions of {:,} models, each trained on its own random subset of the training set, as
bits: from them come the memorization score of every training example and the influence of any training
example on any test example (Feldman and Zhang 2020), each with a confidence interval."""
SCORES_ALONE = """\
Memorization and influence scores (Feldman and Zhang 2020) that were estimated elsewhere, without the
models behind them: they have no counts and no intervals."""
MODELS_HELD = """\
- `blocks/`: subset masks and correctness of every model as bits, up to 1,024 models a block.
- `stats/{n}/`: counts of every example, which follow from the blocks.
- `tables/{n}/memorization.parquet`: the same for pandas, Polars, R, DuckDB."""
LISTS_HELD = """\
- `top_influence/{n}/`, `tables/{n}/top_influence.parquet`: the strongest pairs of every test example."""
SCORES_HELD = """\
- `scores/`: scores that came from elsewhere without the models behind them, and so without intervals:
  `memdb top-memorized --scores NAME --store URL`."""

PICTURES_HELD = """\
- `thumbnails/`: small pictures of the examples, uint8 [examples, height, width, channels]:
  `memdb.open(URL).thumbnails("train", [3, 7])`."""

SHEETS_HELD = """\
- `sheets/`: small pictures of the examples, or their words, 64 to a file, training examples from the most
  memorized, test examples from the hardest; `memdb.open(URL).contents()("train", 3)` has single ones."""
SITE_HELD = """\
- `index.html`, `site/{n}/`: a page that shows all this in a browser, from any web server."""


def readme(
    snapshot: Snapshot, record: SnapshotRecord, published: Published, scores: Sequence[ScoreTable] = ()
) -> str:
    """Return the text; names that come from others are kept from being markup."""
    credit = published.credits
    title = _plain(credit.title) or f"Memorization and influence on {_plain(snapshot.manifest.dataset)}"
    facts = _facts(snapshot, record, published, scores)
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items() if value)
    older = ", ".join(str(item.number) for item in published.older)
    also = f", and the older {older} (`--snapshot N`)" if older else ""
    return f"""# {title}

{INTRODUCTION.format(record.n_models) if record.n_models else SCORES_ALONE}

| | |
|---|---|
{rows}

## Asking

Ask it where it is, without copying it: with `pip install {DISTRIBUTION}` and this folder's address as URL,

    memdb info --store URL
    memdb top-memorized --store URL{_asking_influence(snapshot)}
    memdb pull URL copy.zarr

## What is here

- `published.json`: where a reader starts; it names the newest snapshot, {published.snapshot.number}{also}.
- `dataset/`: names and labels of the examples, not the examples themselves.
{_contents(record, published, scores)}

Everything is a Zarr v3 group that any Zarr reader opens; `snapshots/{record.number}.json` has the size and
sha256 of every object, or of what lists it.

## Citation

{_plain(credit.citation) or "The authors state none."}

The method: V. Feldman and C. Zhang, "What Neural Networks Memorize and Why: Discovering the Long Tail via
Influence Estimation", NeurIPS 2020.
"""


def _facts(
    snapshot: Snapshot, record: SnapshotRecord, published: Published, scores: Sequence[ScoreTable]
) -> dict[str, str]:
    """Return the rows of the table; those without a value are not shown."""
    manifest, credit, derived = snapshot.manifest, published.credits, record.derived
    sets = ", ".join(f"{item.n_examples:,} {item.name}" for item in manifest.sets)
    facts = {
        "data set": f"{_plain(manifest.dataset)}: {sets} examples",
        "recipe": _plain(str(manifest.recipe)),
        "subsets": f"{manifest.subset_fraction:g} of the training set, {manifest.subset_scheme}",
        "models": f"{record.n_models:,}, snapshot {record.number} of {_plain(record.created_at)}",
        "imported scores": ", ".join(_told(table) for table in scores),
        "store id": manifest.store_id,
        "models sha256": record.models_sha256,
        "authors": ", ".join(map(_plain, credit.authors)),
        "licence": _plain(credit.licence) or "not stated: ask before you use it",
    }
    if derived is not None:
        facts |= {
            f"mean {name} accuracy": f"{value:.4f}"
            for name, value in (
                ("train", derived.models.train_accuracy),
                ("held-out", derived.models.out_accuracy),
                ("test", derived.models.test_accuracy),
            )
            if value is not None
        }
    if record.n_models and 0 < manifest.subset_fraction < 1:
        n, p = record.n_models, manifest.subset_fraction
        facts["resolution"] = f"a score's standard error is at most {math.sqrt(0.25 / n / p / (1 - p)):.4f}"
    return facts


def _asking_influence(snapshot: Snapshot) -> str:
    """Return the line that asks about a test example; none if there are no test examples."""
    n_test = next((item.n_examples for item in snapshot.manifest.sets if item.name == layout.TEST), 0)
    asking = f"memdb top-influence --test-id ID --store URL    # ID: 0 to {n_test - 1:,}"
    return f"\n    {asking}" if n_test else ""


def _told(table: ScoreTable) -> str:
    """Return a table's name and what it holds; where it came from, too."""
    held = f"{table.n_memorization:,} of memorization, {table.n_influence:,} of influence"
    return f"{table.name} (number {table.number}: {held}; of {_plain(table.source)})"


def _contents(record: SnapshotRecord, published: Published, scores: Sequence[ScoreTable]) -> str:
    """Return the lines about what there is besides the data set."""
    parts = []
    if record.n_models:
        parts.append(MODELS_HELD.format(n=record.number))
    if record.derived and record.derived.listed:
        parts.append(LISTS_HELD.format(n=record.number))
    if scores:
        parts.append(SCORES_HELD)
    if published.thumbnails:
        parts.append(PICTURES_HELD)
    if published.sheets:
        parts.append(SHEETS_HELD)
    if published.site:
        parts.append(SITE_HELD.format(n=published.site[0]))
    return "\n".join(parts)


def _plain(text: str) -> str:
    """Return text on one line without markup, and without the secrets of an address."""
    line = without_secrets(" ".join("".join(c if c.isprintable() else " " for c in text).split()))
    return "".join(f"\\{c}" if c in HEADINGS else c for c in line)
