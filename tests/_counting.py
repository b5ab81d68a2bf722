"""Workspaces that count what is read, written and listed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from zarr.storage import WrapperStore

from storage.files import FileEntry, Files
from storage.workspace import Workspace

__all__ = ["Counts", "counted_workspaces"]


@dataclass
class Counts:
    """Requests as an object store would count them, for all workspaces of the process."""

    by_kind: Counter[str] = field(default_factory=Counter)
    written: set[str] = field(default_factory=set)
    """Top folders that were written to."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, key: str = "", number: int = 1) -> None:
        with self.lock:
            self.by_kind[kind] += number
            if kind == "writes":
                self.written.add(key.split("/")[0])

    def take(self) -> dict[str, int]:
        """Return the counts since the last call."""
        with self.lock:
            found = {kind: self.by_kind[kind] for kind in ("writes", "reads", "listings")}
            self.by_kind.clear()
            self.written.clear()
            return found


@dataclass(frozen=True)
class CountingFiles:
    files: Files
    counts: Counts

    def read(self, key: str) -> bytes:
        self.counts.add("reads")
        return self.files.read(key)

    def read_many(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        several = list(keys)
        self.counts.add("reads", number=len(several))
        return self.files.read_many(several)

    def write(self, key: str, data: bytes) -> None:
        self.counts.add("writes", key)
        self.files.write(key, data)

    def sizes(self, prefix: str = "") -> Mapping[str, int]:
        self.counts.add("listings")
        return self.files.sizes(prefix)

    def entries(self, prefix: str = "") -> Mapping[str, FileEntry]:
        self.counts.add("listings")
        return self.files.entries(prefix)

    def sizes_of(self, keys: Iterable[str]) -> Mapping[str, int]:
        several = list(keys)
        self.counts.add("reads", number=len(several))
        return self.files.sizes_of(several)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.counts.add("writes", key)
            self.files.delete([key])

    def local_copy(self, key: str) -> AbstractContextManager[Path]:
        self.counts.add("reads")
        return self.files.local_copy(key)

    def local_output(self, key: str) -> AbstractContextManager[Path]:
        self.counts.add("writes", key)
        return self.files.local_output(key)


class CountingStore(WrapperStore[Any]):
    def __init__(self, store: Any, counts: Counts) -> None:
        super().__init__(store)
        self.counts = counts

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        self.counts.add("reads")
        return await super().get(key, *arguments, **options)

    async def exists(self, key: str) -> bool:
        self.counts.add("reads")
        return await super().exists(key)

    async def set(self, key: str, value: Any) -> None:
        self.counts.add("writes", key)
        await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        self.counts.add("writes", key)
        await super().set_if_not_exists(key, value)

    def list_prefix(self, prefix: str) -> Any:
        self.counts.add("listings")
        return super().list_prefix(prefix)

    def list_dir(self, prefix: str) -> Any:
        self.counts.add("listings")
        return super().list_dir(prefix)


def counted_workspaces(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Count the requests of every workspace that is opened from now on."""
    counts, opened = Counts(), Workspace.open

    def open_counted(url: str | Path) -> Workspace:
        workspace = opened(url)
        return replace(
            workspace, files=CountingFiles(workspace.files, counts), store=CountingStore(workspace.store, counts)
        )

    monkeypatch.setattr(Workspace, "open", open_counted)
    return counts
