"""Files under one root, local or remote, each written as a whole or not at all.

Convention: a key is a relative path with forward slashes; a folder is not a file and has no size.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

__all__ = ["FileEntry", "Files", "LocalFiles", "atomic_path", "is_partial", "write_atomic"]

_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file in a listing."""

    size: int
    """Bytes."""
    modified: datetime | None
    """When it was last written, UTC; None where the file system does not record it."""


class Files(Protocol):
    """Operations of a workspace on its files."""

    def read(self, key: str) -> bytes:
        """Return the bytes of one file.

        Raises:
            FileNotFoundError: if it is absent.
        """

    def read_many(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        """Return the bytes of those files that exist, by key."""

    def write(self, key: str, data: bytes) -> None:
        """Write one file, and create its folders; a reader sees the old bytes or the new, never a mixture."""

    def sizes(self, prefix: str = "") -> Mapping[str, int]:
        """Return the size in bytes of every file below `prefix`, by key relative to it, from one listing."""

    def entries(self, prefix: str = "") -> Mapping[str, FileEntry]:
        """Return size and time of every file below `prefix`, by key relative to it, from one listing."""

    def sizes_of(self, keys: Iterable[str]) -> Mapping[str, int]:
        """Return the size in bytes of those files that exist, by key, without a listing."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files one after the other, in the given order; absent ones are skipped."""

    def local_copy(self, key: str) -> contextlib.AbstractContextManager[Path]:
        """Open a context with a local path for reading the file.

        Raises:
            FileNotFoundError: if it is absent, when the context is entered.
        """

    def local_output(self, key: str) -> contextlib.AbstractContextManager[Path]:
        """Open a context with a local path to write to, which becomes the file if the context ends without an error."""


def is_partial(key: str) -> bool:
    """Return whether a key is that of an unfinished file, of this module or of Zarr's local store."""
    name = key.rpartition("/")[2]
    return name.startswith(_PARTIAL) or name.endswith(_PARTIAL)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix, renamed to `path` if the context ends without an error.

    It is in the same folder, since only a rename within one file system is atomic. Missing folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_PARTIAL}-{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a local file as a whole.

    Both the bytes and the folder's entry are flushed to disk, so that after a loss of power the file has either its
    old content or its new one, and a completion record never outlives the files written before it.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # where folders cannot be opened
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
        return {key: found.st_size for key, found in _walk(self.root / prefix, "")}

    def entries(self, prefix: str = "") -> Mapping[str, FileEntry]:
        """See Files."""
        return {
            key: FileEntry(size=found.st_size, modified=datetime.fromtimestamp(found.st_mtime, UTC))
            for key, found in _walk(self.root / prefix, "")
        }

    def sizes_of(self, keys: Iterable[str]) -> Mapping[str, int]:
        """See Files."""
        found = {key: _local_size(self.root / key) for key in keys}
        return {key: size for key, size in found.items() if size is not None}

    def delete(self, keys: Iterable[str]) -> None:
        """See Files. Removes folders that become empty."""
        for key in keys:
            path = self.root / key
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty, or removed by another process
                for folder in path.relative_to(self.root).parents[:-1]:
                    (self.root / folder).rmdir()

    @contextlib.contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        """See Files. Yields the path of the file itself."""
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


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            with contextlib.suppress(FileNotFoundError):  # removed since the listing
                yield f"{prefix}{entry.name}", entry.stat()
