"""The JSON Schemas in schemas/ say what the code writes, and refuse what it refuses."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from support.stores import coin_recipe, small_dataset

import memdb
from memdb.errors import WrongFormatError
from memdb.format.documents import sealed
from memdb.format.manifest import Manifest
from memdb.format.published import ListedGroup, Published
from memdb.format.score_table import ScoreTable
from memdb.format.segment import Segment
from memdb.format.sketches import Projection, SketchPlan
from memdb.format.snapshot_record import BaseUpdate, Retraction, SnapshotRecord
from memdb.store.listed_groups import read_document

jsonschema = pytest.importorskip("jsonschema")


def schema(name):
    found = json.loads(files("memdb.schemas").joinpath(f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


KINDS = {
    "manifest": Manifest, "segment": Segment, "block": Segment, "snapshot": SnapshotRecord,
    "retraction": Retraction, "published": Published, "published_snapshot": SnapshotRecord,
    "extension": Manifest, "extended": SnapshotRecord, "base": BaseUpdate, "score-table": ScoreTable,
    "thumbnails": ListedGroup, "sketching": Manifest, "sketched": Segment,
}  # fmt: skip
SCHEMA_OF = {name: name for name in KINDS} | {
    "block": "segment",
    "sketched": "segment",
    "sketching": "manifest",
    "extension": "manifest",
    "extended": "snapshot",
    "published_snapshot": "snapshot",
}


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory):
    """One document of each kind, as memdb writes them."""
    tmp_path = tmp_path_factory.mktemp("documents")
    shutil.copytree(trained, tmp_path / "s.zarr")
    with memdb.open(str(tmp_path / "s.zarr")) as database:
        return documents_of(database, tmp_path)


@pytest.fixture
def documents(written):
    return copy.deepcopy(written)


def documents_of(database, tmp_path):
    database.export(tmp_path / "pairs.npz", "fz-pairs", top=2)
    table = memdb.import_file(tmp_path / "pairs.npz", database.url).table
    segment = database.snapshot.segments[0].to_document()
    segment["models"][0]["store_seed"] = "3"
    segment = sealed(segment)
    retraction = database.retract([database.snapshot.models[0][1].model_id], "a reason")
    compaction = database.compact()
    database.publish(str(tmp_path / "copy"))
    published = memdb.open(str(tmp_path / "copy"))
    found = {
        "manifest": database.store.manifest.to_document(),
        "segment": segment,
        "block": database.snapshot.segments[0].to_document(),
        "snapshot": compaction.record.to_document(),
        "retraction": retraction.to_document(),
        "score-table": table.to_document(),
        "published": published.store.published.to_document(),
        "published_snapshot": published.snapshot.record.to_document(),
        "thumbnails": pictured(tmp_path).to_document(),
        **extended(database, tmp_path / "own.zarr"),
        **sketched(database.store.manifest, database.snapshot.segments[0]),
    }
    return json.loads(json.dumps(found))


def pictured(folder):
    """The document about the pictures of a published copy."""
    pixels = np.zeros((6, 4, 4), dtype=np.uint8)
    data = memdb.Dataset(pixels, np.zeros(6, int), pixels[:2], np.zeros(2, int))
    with memdb.init(str(folder / "p.zarr"), data, coin_recipe, seed=1) as database:
        database.train(seeds=[1])
        database.publish(str(folder / "pictured"), include=("bits", "thumbnails"))
    store = memdb.open(str(folder / "pictured")).store
    return read_document(store, "sheets", store.published.sheets)


def sketched(manifest, segment):
    """The documents of a store that keeps gradient sketches, but for their objects."""
    plan = SketchPlan(10, Projection.of_store(manifest.seed, 512))
    arrays = {f"{name}/gradient_sketch/0": segment.metadata["mask"] for name in ("train", "test")}
    return {
        "sketching": replace(manifest, sketches=plan).to_document(),
        "sketched": replace(segment, metadata={**segment.metadata, **arrays}).to_document(),
    }


def extended(database, url):
    """The documents of a store that extends this one."""
    import memdb

    code = {"dataset": small_dataset(), "recipe": coin_recipe}
    with memdb.extend(str(url), database.url, **code) as own:
        database.retract([database.snapshot.models[0][1].model_id], "another")
        database.compact()
        return {
            "extension": own.store.manifest.to_document(),
            "base": own.update().to_document(),
            "extended": own.compact().record.to_document(),
        }


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_what_is_written_fits_its_schema_and_comes_back(documents, name, kind):
    schema(SCHEMA_OF[name]).validate(documents[name])
    again = kind.from_document(documents[name], "here")
    assert again.to_document() == documents[name]


WRONG = [
    ("manifest", ["format"], 2), ("manifest", ["store_id"], "short"), ("manifest", ["seed"], 12),
    ("manifest", ["sets"], "train"), ("manifest", ["sets", 0, "n_examples"], 0), ("manifest", ["sets", 0, "name"], "A b"),
    ("manifest", ["outcomes", 0, "kind"], "colour"), ("manifest", ["recipe", "options"], []),
    ("manifest", ["subsets", "fraction"], 1), ("manifest", ["subsets", "scheme"], "folds"),
    ("manifest", ["objects", "a/../b"], [1, "0" * 64]), ("manifest", ["objects", "a"], [-1, "0" * 64]),
    ("segment", ["segment_id"], "yesterday"), ("segment", ["models", 0, "seed"], "-1"),
    ("segment", ["models", 0, "train_accuracy"], 1.5), ("segment", ["models", 0, "diverged"], "no"),
    ("segment", ["models", 0, "model_id"], "x"), ("segment", ["n_models"], 0), ("segment", ["recipe_fingerprint"], ""),
    ("manifest", ["put_if_absent"], "yes"), ("segment", ["metadata"], []),
    ("block", ["sources"], []), ("block", ["sources", 0, 0], "x"), ("block", ["sources", 0, 1], 0),
    ("snapshot", ["number"], 0), ("snapshot", ["models_sha256"], ""), ("snapshot", ["n_models"], -1),
    ("snapshot", ["blocks", 0, "block_id"], "../x"), ("snapshot", ["blocks", 0, "document"], [1]),
    ("snapshot", ["segments"], ["x"]), ("snapshot", ["retracted"], [1]), ("snapshot", ["set_aside"], ["x"]),
    ("retraction", ["retraction_id"], "x"), ("retraction", ["models"], ["short"]),
    ("published", ["store_id"], "x"), ("published", ["snapshot", "path"], "../x"), ("published", ["older"], [3]),
    ("published", ["snapshot", "size"], 0), ("published", ["snapshot", "sha256"], ""), ("published", ["credits"], []),
    ("published", ["credits", "authors"], [1]), ("published", ["required_features"], ["x"]),
    ("published", ["scores"], [{"size": 0, "sha256": "0" * 64}]), ("published", ["scores"], 3),
    ("published", ["sheets"], {"size": 3, "sha256": "x"}), ("published", ["sheets"], 3),
    ("published", ["site"], {"number": 0, "size": 3, "sha256": "0" * 64}), ("published", ["site"], {"size": 3, "sha256": "0" * 64}),
    ("published", ["thumbnails"], {"size": 3, "sha256": "x"}), ("thumbnails", ["store_id"], "x"),
    ("thumbnails", ["objects", "../x"], [1, "0" * 64]), ("thumbnails", ["metadata"], 3),
    ("published_snapshot", ["derived", "stats", "objects", "../x"], [1, "0" * 64]),
    ("published_snapshot", ["derived", "listed"], -1), ("published_snapshot", ["derived", "n_in"], [[1]]),
    ("published_snapshot", ["derived", "class_names"], {"train": 3}), ("published_snapshot", ["derived", "tables"], []),
    ("published_snapshot", ["derived", "models", "n_diverged"], "x"),
    ("retraction", ["segments"], ["x"]), ("retraction", ["because"], 3), ("segment", ["models", 0, "store_seed"], "-1"),
    ("extension", ["required_features"], []), ("extension", ["base", "url"], ""), ("extension", ["base", "snapshot"], 0),
    ("extension", ["base", "store_id"], "x"), ("extension", ["base", "models_sha256"], ""),
    ("manifest", ["required_features"], ["base"]), ("extended", ["base", "n_models"], -1),
    ("sketching", ["sketches"], 3), ("sketching", ["sketches", "models"], 0), ("sketching", ["sketches", "size"], 0),
    ("sketching", ["sketches", "size"], 10**6), ("sketching", ["sketches", "seed"], 7),
    ("sketching", ["sketches", "version"], 0), ("sketched", ["required_features"], ["folds"]),
    ("base", ["number"], 0), ("base", ["base"], 3), ("base", ["base", "url"], "x" * 5000),
    ("score-table", ["number"], 0), ("score-table", ["name"], "../x"), ("score-table", ["coverage"], "some"),
    ("score-table", ["table_id"], "x"), ("score-table", ["objects", "../a"], [1]), ("score-table", ["n_influence"], -1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "path", "value"), WRONG, ids=str)
def test_what_is_wrong_is_refused_by_both(documents, name, path, value):
    document = documents[name]
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        schema(SCHEMA_OF[name]).validate(document)
    kind = KINDS[name]
    with pytest.raises(WrongFormatError):
        kind.from_document(sealed(document), "here")


@pytest.mark.parametrize(
    "name", ["manifest", "segment", "snapshot", "retraction", "base", "published", "score-table"]
)
def test_every_field_is_required_and_missing_ones_are_all_named(documents, name):
    kind = KINDS[name]
    with pytest.raises(WrongFormatError) as caught:
        kind.from_document({"format": 1}, "here")
    required = set(schema(name).schema["required"]) - {"format", "required_features", "self_sha256"}
    for field in required:
        assert f"here.{field} is missing" in str(caught.value), field
