"""Zarr's own tests of a store, on the read-only one through which memdb reads what was committed."""

from __future__ import annotations

import hashlib

import pytest
from zarr.core.buffer import cpu
from zarr.testing.store import StoreTests

from memdb.format.manifest import ObjectInfo
from memdb.storage import open_storage
from memdb.store.read_arrays import CheckedStore

GROUP = "segments/one"


def skipped(reason):
    @pytest.mark.skip(reason=reason)
    def test(self):
        pass

    return test


class FilledStore(CheckedStore):
    """Is given objects as a commit gives them: into the storage, and onto the list."""

    async def set(self, key, value):
        data = value.to_bytes()
        self._storage.write_all({f"{self._group}/{key}": data})
        self._objects[key] = ObjectInfo(len(data), hashlib.sha256(data).hexdigest())


class TestCheckedStore(StoreTests[CheckedStore, cpu.Buffer]):
    store_cls = CheckedStore
    buffer_cls = cpu.Buffer

    @pytest.fixture(params=["local", "memory"])
    def store_kwargs(self, request, tmp_path):
        url = str(tmp_path / "s.zarr") if request.param == "local" else f"memory://{tmp_path.name}/s.zarr"
        return {"storage": open_storage(url), "group": GROUP, "objects": {}}

    @pytest.fixture
    async def store(self, open_kwargs):
        return await FilledStore.open(**open_kwargs)

    @pytest.fixture
    async def store_not_open(self, store_kwargs):
        return FilledStore(**store_kwargs)

    async def set(self, store, key, value):
        await FilledStore.set(store, key, value)

    async def get(self, store, key):
        return self.buffer_cls.from_bytes(store._storage.read(f"{GROUP}/{key}"))

    def test_store_repr(self, store):
        assert repr(store) == f"CheckedStore({store._storage.url!r}, 'segments/one', 0 objects)"

    def test_store_supports_writes(self, store):
        assert not store.supports_writes
        assert not store.supports_deletes

    def test_store_supports_listing(self, store):
        assert store.supports_listing

    def test_store_read_only(self, store):
        assert store.read_only
        with pytest.raises(AttributeError):
            store.read_only = False

    async def test_store_open_read_only(self, open_kwargs):
        store = await CheckedStore.open(**open_kwargs, read_only=True)
        assert store.read_only
        with pytest.raises(ValueError, match="what is committed never changes"):
            await CheckedStore.open(**open_kwargs, read_only=False)

    test_set = skipped("writes through the store, which is read-only")
    test_set_not_open = skipped("writes through the store, which is read-only")
    test_set_many = skipped("writes through the store, which is read-only")
    test_set_if_not_exists = skipped("writes through the store, which is read-only")
    test_clear = skipped("removes through the store, which is read-only")
