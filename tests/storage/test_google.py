"""The same store on Google's protocol: an emulator on loopback. pip install gcp-storage-emulator gcsfs."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from http import HTTPStatus

import pytest
from support.stores import coin_recipe, small_dataset

import memdb
from memdb.errors import AlreadyExistsError, NotFoundError, StorageError

pytestmark = pytest.mark.google


@pytest.fixture(scope="module")
def google():
    """The emulator, taught the precondition that it does not know: create only what is absent."""
    pytest.importorskip("gcsfs")
    server = pytest.importorskip("gcp_storage_emulator.server")
    from gcp_storage_emulator.handlers import objects

    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    upload, lock = objects._multipart_upload, threading.Lock()

    def conditional(request, response, storage):
        with lock:
            place = request.params["bucket_name"], request.data["meta"]["name"]
            if request.query.get("ifGenerationMatch") == ["0"] and is_there(storage, *place):
                response.status = HTTPStatus.PRECONDITION_FAILED
                response.json({"error": {"code": 412, "message": "conditionNotMet"}})
            else:
                upload(request, response, storage)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(objects, "_multipart_upload", conditional)
        running = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
        running.start()
        port = running._api._httpd.server_port
        yield {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon"}
        running.stop()


def is_there(storage, bucket, name):
    from gcp_storage_emulator import exceptions

    try:
        storage.get_file_obj(bucket, name)
    except exceptions.NotFoundError:
        return False
    return True


def test_a_store_on_google_is_made_extended_compacted_cleaned_and_asked(google, trained):
    place = {"url": "gs://bucket/s.zarr", "storage_options": google}
    bits = {
        "outcomes": ["correct"]
    }  # the emulator cuts a line feed off an object's end: no array of these has one
    with memdb.init(dataset=small_dataset(), recipe=coin_recipe, seed=7, **bits, **place) as db:
        assert db.store.manifest.put_if_absent
        db.train(seeds=range(37))
    with pytest.raises(AlreadyExistsError):
        memdb.init(dataset=small_dataset(), recipe=coin_recipe, seed=7, **place)
    with memdb.open(**place, cache=None) as db, memdb.open(str(trained)) as local:
        expected = local.sql("FROM influence").fetchall()
        assert db.sql("FROM influence").fetchall() == expected
        assert db.compact().record.number == 1
        assert len(db.gc(grace=timedelta(0), alone=True)) == 8
        assert db.verify()[0].damages == []
        assert db.sql("FROM influence").fetchall() == expected


def test_nothing_there_is_no_store(google):
    with pytest.raises(NotFoundError, match="no memdb store at"):
        memdb.open("gs://bucket/none", storage_options=google)


def test_a_server_that_does_not_answer_is_one_error_within_a_minute():
    pytest.importorskip("gcsfs")
    started = time.monotonic()
    with pytest.raises(StorageError, match="cannot read gs://bucket/x/zarr.json"):
        memdb.open("gs://bucket/x", storage_options={"endpoint_url": "http://127.0.0.1:9", "token": "anon"})
    assert time.monotonic() - started < 60
