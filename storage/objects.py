"""Object stores: S3, Google Cloud Storage and Azure through obstore, and one in memory that ends with its process.

Credentials, endpoint and region come from the environment, as obstore reads it (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME, ...). Errors of the stores are mapped
here and nowhere else: an absent object is a FileNotFoundError, everything else is a WorkspaceError.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import MemoryStore, ObjectStore, from_url
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore as ZarrObjectStore

from storage.errors import UnreachableError, WorkspaceError
from storage.files import FileEntry

__all__ = ["SCHEMES", "ObjectFiles", "mapped_errors", "open_array_store", "open_store"]

SCHEMES: Final = ("s3", "gs", "az", "memory")
_REQUESTS = 16  # at the same time
_RETRY_SECONDS = 60
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}

T = TypeVar("T")


@lru_cache(maxsize=64)
def open_store(url: str) -> ObjectStore:
    """Return the store of a URL; every call in a process returns the same one, with its connections or its memory.

    Raises:
        WorkspaceError: if the URL does not name a bucket, or the environment lacks what the store needs.
    """
    if url.startswith("memory://"):
        return MemoryStore()
    # Other client options would replace those that the environment sets
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    options: Any = {"client_options": {"allow_http": True}} if plain else {}
    try:
        return from_url(url, retry_config={"retry_timeout": timedelta(seconds=_RETRY_SECONDS)}, **options)
    except BaseError as error:
        raise WorkspaceError(f"cannot use the workspace {url}: {str(error).strip().splitlines()[0]}") from error


@contextlib.contextmanager
def mapped_errors(url: str) -> Iterator[None]:
    """Raise errors of an object store as errors of this package; those of a condition on a write pass unchanged.

    Raises:
        FileNotFoundError: for an absent object.
        UnreachableError: for a lost connection, a time-out, or an error of the server.
        WorkspaceError: for anything else, also an absent bucket.
    """
    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except (BaseError, FileNotFoundError) as error:
        raise _mapped(url, error) from error


def _mapped(url: str, error: Exception) -> Exception:
    text = str(error)
    code, status = (re.search(pattern, text) for pattern in (r"<Code>(\w+)</Code>", r"status code: (\d+)"))
    reason = text.strip().splitlines()[0].partition(": <")[0] + (f" ({code[1]})" if code else "")
    if code and code[1] in _NO_BUCKET:
        return WorkspaceError(f"the bucket of {url} does not exist: create it, or correct the URL")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(reason)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or (status and status[1] in ("401", "403")):
        return WorkspaceError(f"the store of {url} denies access: check its credentials ({reason})")
    if isinstance(error, GenericError) and _may_pass(None if status is None else int(status[1])):
        return UnreachableError(f"the store of {url} does not answer: {reason}")
    return WorkspaceError(f"the store of {url} refuses a request: {reason}")


def _may_pass(status: int | None) -> bool:
    """Return whether the same request may succeed later, by the status of the answer, None without an answer."""
    return status is None or status >= 500 or status in (408, 429)


@dataclass(frozen=True, slots=True)
class ObjectFiles:
    """Files in an object store, below the prefix of its URL."""

    url: str
    store: ObjectStore

    def read(self, key: str) -> bytes:
        """See Files."""
        with mapped_errors(self.url):
            return obstore.get(self.store, key).bytes().to_bytes()

    def read_many(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        """See Files. The requests are made at the same time."""
        return _found(self.read, keys)

    def write(self, key: str, data: bytes) -> None:
        """See Files."""
        with mapped_errors(self.url):
            obstore.put(self.store, key, data)

    def sizes(self, prefix: str = "") -> Mapping[str, int]:
        """See Files."""
        return {key: entry.size for key, entry in self.entries(prefix).items()}

    def entries(self, prefix: str = "") -> Mapping[str, FileEntry]:
        """See Files."""
        below = f"{prefix}/" if prefix else ""
        with mapped_errors(self.url):
            found = obstore.list(self.store, below or None).collect()
        return {
            item["path"].removeprefix(below): FileEntry(size=item["size"], modified=item["last_modified"])
            for item in found
        }

    def sizes_of(self, keys: Iterable[str]) -> Mapping[str, int]:
        """See Files. The requests are made at the same time."""
        return _found(self._size, keys)

    def delete(self, keys: Iterable[str]) -> None:
        """See Files."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError), mapped_errors(self.url):
                obstore.delete(self.store, key)

    @contextlib.contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        """See Files. Downloads to a temporary folder, piece by piece."""
        with tempfile.TemporaryDirectory(prefix="wave-") as folder:
            path = Path(folder) / Path(key).name
            with mapped_errors(self.url), path.open("wb") as file:
                for piece in obstore.get(self.store, key).stream():
                    file.write(piece)
            yield path

    @contextlib.contextmanager
    def local_output(self, key: str) -> Iterator[Path]:
        """See Files. Uploads from a temporary folder, piece by piece."""
        with tempfile.TemporaryDirectory(prefix="wave-") as folder:
            path = Path(folder) / Path(key).name
            yield path
            with mapped_errors(self.url):
                obstore.put(self.store, key, path)

    def _size(self, key: str) -> int:
        with mapped_errors(self.url):
            return obstore.head(self.store, key)["size"]


def _found(request: Callable[[str], T], keys: Iterable[str]) -> dict[str, T]:
    """Make a request for each key, several at the same time; leave out the keys of absent objects."""

    def unless_absent(key: str) -> T | None:
        with contextlib.suppress(FileNotFoundError):
            return request(key)
        return None

    several = list(keys)
    if len(several) < 2:  # threads cost more than one request saves
        answers = [unless_absent(key) for key in several]
    else:
        with ThreadPoolExecutor(min(_REQUESTS, len(several))) as pool:
            answers = list(pool.map(unless_absent, several))
    return {key: answer for key, answer in zip(several, answers, strict=True) if answer is not None}


def open_array_store(url: str) -> Store:
    """Return the Zarr store of a URL, with its errors mapped.

    Raises:
        WorkspaceError: as `open_store`.
    """
    return _MappedStore(open_store(url), url=url)


class _MappedStore(ZarrObjectStore[Any]):
    """Zarr's store on obstore, with the errors of this package."""

    def __init__(self, store: ObjectStore, *, url: str, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self._url = url

    def with_read_only(self, read_only: bool = False) -> _MappedStore:
        return _MappedStore(self.store, url=self._url, read_only=read_only)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        with mapped_errors(self._url):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        with mapped_errors(self._url):
            return await super().get_partial_values(prototype, key_ranges)

    async def exists(self, key: str) -> bool:
        with mapped_errors(self._url):
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        with mapped_errors(self._url):
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        with mapped_errors(self._url):
            await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        with mapped_errors(self._url):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        with mapped_errors(self._url):
            await super().delete_dir(prefix)
