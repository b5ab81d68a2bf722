"""Files under one root, local or remote, each written as a whole or not at all.

Convention: a key is a relative path with forward slashes; `sizes` and `delete` know nothing of folders.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Files", "LocalFiles", "RemoteFiles", "atomic_path", "is_partial", "write_atomic"]

_PARTIAL = ".partial"
_REQUESTS = 16  # at the same time


class Files(Protocol):
    """What a workspace needs of the place that holds its files."""

    def read(self, key: str) -> bytes:
        """The bytes of one file. Raises FileNotFoundError."""

    def read_many(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        """The bytes of those files that exist."""

    def write(self, key: str, data: bytes) -> None:
        """Write one file: a reader sees the old bytes or the new, never a mixture."""

    def sizes(self, prefix: str = "") -> Mapping[str, int]:
        """Bytes of every file below `prefix`, by key relative to it, from one listing."""

    def sizes_of(self, keys: Iterable[str]) -> Mapping[str, int]:
        """Return the bytes of those files that exist, by key, without a listing."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files one after the other, in the order given; those that are gone already do not matter."""

    def local_copy(self, key: str) -> contextlib.AbstractContextManager[Path]:
        """A local path with the file's bytes, for reading, while the context lasts. Raises FileNotFoundError."""

    def local_output(self, key: str) -> contextlib.AbstractContextManager[Path]:
        """A local path to write to; it becomes the file when the context ends without an error."""


def is_partial(key: str) -> bool:
    """Whether a key names a file that was still being written, by this module or by Zarr's local store."""
    name = key.rpartition("/")[2]
    return name.startswith(_PARTIAL) or name.endswith(_PARTIAL)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path`, with its suffix, that is moved onto it when the context ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_PARTIAL}-{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a local file as a whole, so that it also survives a loss of power."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Files in a local folder."""

    root: Path

    def read(self, key: str) -> bytes:
        """See Files."""
        return (self.root / key).read_bytes()

    def read_many(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        """See Files."""
        found = {}
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                found[key] = self.read(key)
        return found

    def write(self, key: str, data: bytes) -> None:
        """See Files."""
        write_atomic(self.root / key, data)

    def sizes(self, prefix: str = "") -> Mapping[str, int]:
        """See Files."""
        return dict(_walk(self.root / prefix, ""))

    def sizes_of(self, keys: Iterable[str]) -> Mapping[str, int]:
        """See Files."""
        found = {key: _local_size(self.root / key) for key in keys}
        return {key: size for key, size in found.items() if size is not None}

    def delete(self, keys: Iterable[str]) -> None:
        """See Files. Folders that become empty go too."""
        for key in keys:
            path = self.root / key
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty, or gone already
                for folder in path.relative_to(self.root).parents[:-1]:
                    (self.root / folder).rmdir()

    @contextlib.contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        """See Files. The file itself."""
        path = self.root / key
        if not path.is_file():
            raise FileNotFoundError(path)
        yield path

    def local_output(self, key: str) -> contextlib.AbstractContextManager[Path]:
        """See Files."""
        return atomic_path(self.root / key)


def _local_size(path: Path) -> int | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            with contextlib.suppress(FileNotFoundError):  # replaced or removed since the listing
                yield f"{prefix}{entry.name}", entry.stat().st_size


@dataclass(frozen=True, slots=True)
class RemoteFiles:
    """Files below a path of an fsspec file system, whose puts are atomic (as object stores' are)."""

    filesystem: Any
    root: str

    def read(self, key: str) -> bytes:
        """See Files."""
        return bytes(self.filesystem.cat_file(self._path(key)))

    def read_many(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        """See Files. Requests run side by side where the file system can."""
        by_path = {self._path(key).lstrip("/"): key for key in keys}
        if not by_path:
            return {}
        found = self.filesystem.cat([self._path(key) for key in by_path.values()], on_error="omit")
        return {by_path[path.lstrip("/")]: bytes(data) for path, data in found.items()}

    def write(self, key: str, data: bytes) -> None:
        """See Files."""
        self.filesystem.pipe_file(self._path(key), data)

    def sizes(self, prefix: str = "") -> Mapping[str, int]:
        """See Files."""
        self.filesystem.invalidate_cache()  # drivers remember listings, other processes write
        base = self._path(prefix).rstrip("/")
        found = self.filesystem.find(base, detail=True)
        skip = len(base.lstrip("/")) + 1
        return {path.lstrip("/")[skip:]: int(info["size"]) for path, info in found.items()}

    def sizes_of(self, keys: Iterable[str]) -> Mapping[str, int]:
        """See Files. Concurrent where the driver is asynchronous; only such drivers are safe to call from threads."""
        self.filesystem.invalidate_cache()
        several = list(keys)
        if self.filesystem.async_impl:
            with ThreadPoolExecutor(_REQUESTS) as pool:
                sizes = list(pool.map(self._size, several))
        else:
            sizes = [self._size(key) for key in several]
        return {key: size for key, size in zip(several, sizes, strict=True) if size is not None}

    def delete(self, keys: Iterable[str]) -> None:
        """See Files."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                self.filesystem.rm_file(self._path(key))

    @contextlib.contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        """See Files. A download, removed again."""
        with tempfile.TemporaryDirectory(prefix="wave-") as folder:
            path = Path(folder) / Path(key).name
            self.filesystem.get_file(self._path(key), str(path))
            yield path

    @contextlib.contextmanager
    def local_output(self, key: str) -> Iterator[Path]:
        """See Files."""
        with tempfile.TemporaryDirectory(prefix="wave-") as folder:
            path = Path(folder) / Path(key).name
            yield path
            self.filesystem.put_file(str(path), self._path(key))

    def _size(self, key: str) -> int | None:
        try:
            info = self.filesystem.info(self._path(key))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root
