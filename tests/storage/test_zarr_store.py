"""Zarr's own tests of stores, on the store of a workspace in an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import LocalStore, MemoryStore
from zarr.core.buffer import Buffer, cpu
from zarr.testing.store import StoreTests

from storage.objects import _MappedStore, open_store


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.usefixtures("anyio_backend")
class TestMappedStore(StoreTests[_MappedStore, cpu.Buffer]):
    store_cls = _MappedStore
    buffer_cls = cpu.Buffer

    @pytest.fixture(params=["memory", "folder"])
    def store_kwargs(self, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
        url = f"memory://{tmp_path}"
        store = open_store(url) if request.param == "memory" else LocalStore(tmp_path)
        return {"store": store, "url": url, "read_only": False}

    async def set(self, store: _MappedStore, key: str, value: Buffer) -> None:
        await obstore.put_async(store.store, key, value.to_bytes())

    async def get(self, store: _MappedStore, key: str) -> cpu.Buffer:
        answer = await obstore.get_async(store.store, key)
        return self.buffer_cls.from_bytes(bytes(await answer.bytes_async()))

    async def test_serializable_store(self, store: _MappedStore) -> None:
        if isinstance(store.store, MemoryStore):
            pytest.skip("a store in memory ends with its process")
        await super().test_serializable_store(store)

    def test_store_repr(self, store: _MappedStore) -> None:
        assert repr(store.store) in repr(store)

    def test_store_supports_writes(self, store: _MappedStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: _MappedStore) -> None:
        assert store.supports_listing
