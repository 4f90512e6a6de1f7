"""The same store on Azure's protocol: Azurite on loopback. npm install azurite; PATH has its azurite-blob."""

from __future__ import annotations

import shutil
import socket
import subprocess
from datetime import timedelta

import pytest
from support.stores import coin_recipe, small_dataset

import memdb
from memdb.errors import AlreadyExistsError, NotFoundError

pytestmark = pytest.mark.azure
PUBLIC_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="module")
def azure():
    adlfs = pytest.importorskip("adlfs")
    server = shutil.which("azurite-blob")
    if server is None:
        pytest.skip("azurite-blob is not on the PATH: npm install -g azurite")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    quiet = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    running = subprocess.Popen([server, *place, *quiet], stdout=subprocess.PIPE, text=True)
    account = f"AccountName=devstoreaccount1;AccountKey={PUBLIC_KEY}"
    endpoint = f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1"
    options = {"connection_string": f"DefaultEndpointsProtocol=http;{account};{endpoint};"}
    assert any("successfully listens" in line for line in running.stdout), "Azurite did not start"
    adlfs.AzureBlobFileSystem(**options).mkdir("bucket")
    yield options
    running.terminate()
    running.communicate()


def test_a_store_on_azure_is_made_extended_compacted_cleaned_and_asked(azure, trained):
    place = {"url": "az://bucket/s.zarr", "storage_options": azure}
    with memdb.init(dataset=small_dataset(), recipe=coin_recipe, seed=7, **place) as db:
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


def test_nothing_there_is_no_store(azure):
    with pytest.raises(NotFoundError, match="no memdb store at"):
        memdb.open("az://bucket/none", storage_options=azure)
