"""What `memdb info` says of a store, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memdb.cli.output import Way, answer_of, emit
from memdb.render import tables
from memdb.render.answer import Answer
from memdb.render.tables import clean, number
from memdb.wording import count

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation
    from rich.console import RenderableType

    from memdb.database import Database
    from memdb.format.manifest import RecipeInfo

SOME = 5  # model ids that are named


def print_info(db: Database, rows: DuckDBPyRelation, way: Way) -> None:
    """Print what is in a store."""

    def table(answer: Answer) -> RenderableType:
        row = next(answer.rows())
        lines = {
            **_content_lines(db, row),
            **_state_lines(db, row),
            **(_quality_lines(row, way) if row["n_models"] else {}),
        }
        return tables.facts(lines, clean(db.url))

    emit(answer_of(db, rows, way), way, table)


def _content_lines(db: Database, row: Mapping[str, Any]) -> dict[str, object]:
    """Say what a store is of, and how many models it has."""
    of_base = f", {row['n_base_models']:,} of the base, the others" if row["base"] is not None else ""
    repeats = f"; {row['n_repeats']} committed twice, counted once" if row["n_repeats"] else ""
    return {
        "data set": f"{row['dataset']}: {row['n_train']:,} training and {row['n_test']:,} test examples, "
        f"{row['n_classes']} class{'' if row['n_classes'] == 1 else 'es'}",
        "recipe": _recipe_line(db.store.manifest.recipe),
        "subsets": f"{row['subset_fraction']:g} of the training set, {row['subset_scheme']}",
        "outcomes": ", ".join(row["outcomes"].split(",")),
        **_sketch_lines(db, row),
        "models": f"{row['n_models']:,}{of_base} in {count(row['n_blocks'], 'block')} and "
        f"{count(row['n_loose_segments'], 'segment')}{repeats}",
        **_base_lines(row),
        "snapshot": _snapshot_line(db, row),
        "created": row["created_at"],
        "store id": row["store_id"],
    }


def _state_lines(db: Database, row: Mapping[str, Any]) -> dict[str, object]:
    """Say what is not as in most stores: what is not counted, and what the storage lacks."""
    lines: dict[str, object] = {}
    if row["n_retracted"]:
        lines["retracted"] = f"{count(row['n_retracted'], 'model')}, not counted{_reasons(db)}"
    if row["n_set_aside"]:
        lines["set aside"] = f"{count(row['n_set_aside'], 'damaged part')}, not read"
    if not row["put_if_absent"]:
        lines["storage"] = "overwrites what it should only create: compact with --alone"
    if db.store.storage.can_list or not row["n_models"]:
        names = [f"{t.name} ({count(t.n_influence, 'pair')})" for t in db.score_tables()]
        lines |= {"imported scores": ", ".join(names)} if names else {}
    if row["n_diverged"]:
        some = _some(row["diverged"])
        lines["diverged"] = f"{count(row['n_diverged'], 'model')}, counted like all others: {some}"
    if db.snapshot.excluded:
        lines["excluded"] = f"{count(len(db.snapshot.excluded), 'model')}, by --exclude"
    return lines


def _quality_lines(row: Mapping[str, Any], way: Way) -> dict[str, object]:
    """Say how well the models do, and how tight intervals are."""
    return {
        "accuracy": f"{number(row['train_accuracy'])} in, {number(row['out_accuracy'])} held out, "
        f"{number(row['test_accuracy'])} test",
        "seconds a model": f"{row['seconds_per_model']:.3g}",
        "memorized": f"{count(row['n_memorized_25'], 'example')} at 0.25 or more, "
        f"{row['n_memorized_50']:,} at 0.5 or more",
        "half-width": f"{number(row['mean_half_width'])}, mean of the {way.level * 100:g} % {way.interval} "
        f"intervals of {count(row['n_scored'], 'memorization score')}",
    }


def _recipe_line(recipe: RecipeInfo) -> str:
    """Say which recipe it is, and what training would import, of which its name need not tell anything."""
    path = recipe.imports
    return str(recipe) if path in {None, recipe.name} else f"{recipe}, imported from {path}"


def _sketch_lines(db: Database, row: Mapping[str, Any]) -> dict[str, object]:
    """Say how many models have gradient sketches, and how many are to have them."""
    if "n_sketched" not in row:
        return {}
    plan = db.store.manifest.sketches
    of = f" of {plan.models:,}" if plan and plan.models > row["n_sketched"] else ""
    size = row["sketch_size"] or (plan.projection.size if plan else 0)
    taken = f", {tables.size(row['sketch_bytes'])}" if row["n_sketched"] else ""
    noun = "model" if row["n_sketched"] == 1 and not of else "models"
    return {"sketches": f"{row['n_sketched']:,}{of} {noun}, {size} numbers an example{taken}"}


def _some(model_ids: Sequence[str]) -> str:
    """Name the first of some models."""
    more = ", ..." if len(model_ids) > SOME else ""
    return ", ".join(identifier[:8] for identifier in model_ids[:SOME]) + more


def _base_lines(row: Mapping[str, Any]) -> dict[str, object]:
    """Say which store this one extends, and whether that one has a newer snapshot."""
    if row["base"] is None:
        return {}
    lines: dict[str, object] = {"base": f"{clean(row['base'])}, snapshot {row['base_snapshot']}"}
    if row["base_newest_snapshot"] > row["base_snapshot"]:
        lines["base is newer"] = f"snapshot {row['base_newest_snapshot']}: move on to it with `memdb update`"
    return lines


def _reasons(db: Database) -> str:
    because = dict.fromkeys(item.because for item in db.snapshot.retractions if item.models)
    return f": {'; '.join(because)}" if because else ""


def _snapshot_line(db: Database, row: Mapping[str, Any]) -> str:
    if row["newest_snapshot"] is None:
        return "none yet; `memdb compact` makes one"
    exact = db.snapshot.number is not None
    return f"{row['newest_snapshot']}" + ("" if exact else ", and models that came or went since")
