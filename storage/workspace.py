"""Workspaces: the folder or the part of an object store that contains everything the pipeline makes."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import unquote, urlsplit

from zarr.abc.store import Store
from zarr.storage import LocalStore

from storage._layout import RECORD, checked_path
from storage.artifact import Artifact
from storage.errors import WorkspaceError
from storage.files import Files, LocalFiles
from storage.objects import SCHEMES, ObjectFiles, open_array_store, open_store
from storage.reference import ArtifactRef

__all__ = ["Workspace", "intercepted_workspaces", "open_artifact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """An open workspace, as returned by `Workspace.open`."""

    url: str
    """The absolute path of a folder, or a remote URL without a slash at its end."""
    files: Files
    store: Store

    @classmethod
    def open(cls, url: str | Path) -> Workspace:
        """Open a workspace; write nothing and create nothing.

        A workspace that does not exist yet reads as an empty one. Its folders are created by the first write;
        `check_writable` checks beforehand that writing will succeed.

        Args:
            url: a folder, a `file://` URL, or an object store's: `s3://bucket/prefix`, `gs://bucket/prefix`,
                `az://container/prefix`, or `memory://name` for a workspace that ends with the process.

        Raises:
            WorkspaceError: if the URL is not understood, or a local path or one of its parents is a file.
        """
        text = str(url)
        folder = _local_folder(text)
        opened = _open_objects(text) if folder is None else _open_local(folder)
        intercept = _INTERCEPT.get()
        return opened if intercept is None else intercept(opened)

    def artifact(self, where: ArtifactRef | str) -> Artifact:
        """Return an artifact by its reference or, for reading only, by its path.

        The path of a reference is resolved in this workspace, even if the reference names another one: a workspace
        may be moved or copied.

        Raises:
            WorkspaceError: if the path leaves the workspace.
        """
        path, digest = (where, None) if isinstance(where, str) else (where.path, where.digest)
        return Artifact(
            workspace_url=self.url, files=self.files, store=self.store, path=checked_path(path), digest=digest
        )

    def ref(self, path: str, digest: str) -> ArtifactRef:
        """Return the reference of an artifact that may or may not exist yet.

        Raises:
            WorkspaceError: if the path leaves the workspace.
        """
        return ArtifactRef(workspace=self.url, path=checked_path(path), digest=digest)

    def recorded(self, paths: Iterable[str]) -> set[str]:
        """Return those paths at which an artifact has a completion record, whatever the record says; lists nothing."""
        keys = {f"{path}/{RECORD}": path for path in paths}
        return {keys[key] for key in self.files.sizes_of(keys)}

    def usage(self, path: str = "") -> int:
        """Return the number of bytes stored below a path, or in the whole workspace."""
        return sum(self.files.sizes(checked_path(path) if path else "").values())

    def check_writable(self) -> None:
        """Check that files can be written: create a local folder where it is absent, write and remove an empty file.

        Raises:
            WorkspaceError: if that fails.
        """
        key = f".partial-probe-{uuid.uuid4().hex[:12]}"
        try:
            self.files.write(key, b"")
            self.files.delete([key])
        except (OSError, WorkspaceError) as error:
            _fail(self.url, f"it cannot be written ({_first_line(error)})", error)


_INTERCEPT: Final[ContextVar[Callable[[Workspace], Workspace] | None]] = ContextVar("wave_workspaces", default=None)


@contextlib.contextmanager
def intercepted_workspaces(intercept: Callable[[Workspace], Workspace]) -> Iterator[None]:
    """Pass every workspace that is opened inside the context through a function.

    Everything that stages, tables and records write passes through the files and the store of a workspace, so that
    this is the one place where it can be counted, or made to fail (see `storage.faults`).
    """
    token = _INTERCEPT.set(intercept)
    try:
        yield
    finally:
        _INTERCEPT.reset(token)


def open_artifact(ref: ArtifactRef) -> Artifact:
    """Return the artifact of a reference, in the reference's own workspace; write nothing and create nothing.

    Raises:
        WorkspaceError: as `Workspace.open`.
    """
    return Workspace.open(ref.workspace).artifact(ref)


def _local_folder(url: str) -> Path | None:
    """Return the folder that a plain path or a file:// URL names; None for other URLs."""
    if not url:
        raise WorkspaceError("a workspace needs a folder or a URL, got an empty string")
    if "://" not in url:
        try:
            return Path(url).expanduser().absolute()
        except RuntimeError as error:
            _fail(url, "there is no such home folder", error)
    parts = urlsplit(url)
    if parts.scheme not in ("file", "local"):
        return None
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        _fail(url, "a file:// URL starts with three slashes and an absolute path")
    return Path(unquote(parts.path))


def _open_local(folder: Path) -> Workspace:
    try:
        blocking = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    except OSError as error:  # for example a parent that this user may not search
        _fail(str(folder), f"it cannot be reached ({error.strerror or error})", error)
    if blocking is not None:
        _fail(str(folder), f"{blocking} is not a folder")
    return Workspace(url=str(folder), files=LocalFiles(folder), store=LocalStore(folder))


def _open_objects(url: str) -> Workspace:
    if url.partition("://")[0].lower() not in SCHEMES:
        *first, last = (f"{scheme}://" for scheme in ("file", *SCHEMES))
        _fail(url, f"use a folder, {', '.join(first)} or {last}")
    url = url.rstrip("/")
    if url.endswith(":"):
        _fail(url, "it does not name a bucket")
    return Workspace(url=url, files=ObjectFiles(url, open_store(url)), store=open_array_store(url))


def _fail(url: str, why: str, cause: BaseException | None = None) -> NoReturn:
    raise WorkspaceError(f"cannot use the workspace {url}: {why}") from cause


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
