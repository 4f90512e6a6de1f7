"""The same store on object storage: S3's protocol on loopback, and fsspec's memory."""

from __future__ import annotations

import uuid

import pytest
from support.stores import coin_recipe, small_dataset

import memdb
from memdb.errors import AlreadyExistsError, DamagedError, NotFoundError, StorageError


@pytest.fixture(params=["s3", "memory"])
def place(request):
    name = uuid.uuid4().hex
    if request.param == "memory":
        return {"url": f"memory://{name}/s.zarr", "storage_options": {}}
    return {"url": f"s3://bucket/{name}/s.zarr", "storage_options": request.getfixturevalue("s3")}


def test_a_store_on_object_storage_is_made_extended_and_asked(place, trained):
    with memdb.init(dataset=small_dataset(), recipe=coin_recipe, seed=7, **place) as db:
        db.train(seeds=range(20))
    with memdb.open(**place) as db:
        db.train(seeds=range(37), dataset=small_dataset(), recipe=coin_recipe)
    with memdb.open(**place) as db, memdb.open(str(trained)) as local:
        assert db.models_sha256 == local.models_sha256
        assert db.top_influence(test_id=3).fetchall() == local.top_influence(test_id=3).fetchall()
        assert db.sql("FROM memorization").fetchall() == local.sql("FROM memorization").fetchall()


def test_creation_on_object_storage_is_exclusive(place):
    memdb.init(dataset=small_dataset(), recipe=coin_recipe, **place).close()
    with pytest.raises(AlreadyExistsError):
        memdb.init(dataset=small_dataset(), recipe=coin_recipe, **place)


def test_nothing_there_is_no_store(place):
    with pytest.raises(NotFoundError, match="no memdb store at"):
        memdb.open(**place)


def test_a_lost_object_is_an_error_that_names_it(place):
    with memdb.init(dataset=small_dataset(), recipe=coin_recipe, **place) as db:
        db.train(seeds=range(3))
        storage = db.store.storage
        segment = db.snapshot.segments[0].segment_id
        storage._filesystem.rm_file(storage._full(f"segments/{segment}/mask/c.0.0"))
    with memdb.open(**place) as db, pytest.raises(DamagedError, match="mask/c.0.0 is missing"):
        db.top_memorized(1)


def test_a_bucket_that_does_not_answer_is_one_error():
    pytest.importorskip("s3fs")
    options = {
        "key": "k", "secret": "s", "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }  # fmt: skip
    with pytest.raises(StorageError, match="cannot read s3://bucket/x/zarr.json"):
        memdb.open("s3://bucket/x", storage_options=options)


def test_a_page_in_a_bucket_is_shown_and_not_saved(s3):
    import s3fs

    from memdb.storage import open_storage

    open_storage("s3://bucket/page", s3).write_all({"index.html": b"<p>", "site/1/facts/c.0": b"<p>"})
    files = s3fs.S3FileSystem(**s3)
    assert files.info("bucket/page/index.html")["ContentType"].startswith("text/html")
    assert "html" not in files.info("bucket/page/site/1/facts/c.0")["ContentType"]
