"""Workspaces: where everything the pipeline makes is kept, a folder or any fsspec URL."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

import fsspec
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from storage._layout import checked_path
from storage.artifact import Artifact
from storage.errors import WorkspaceError
from storage.files import Files, LocalFiles, RemoteFiles
from storage.reference import ArtifactRef

__all__ = ["Workspace", "open_artifact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """An open workspace. `Workspace.open` makes one."""

    url: str
    """A folder's absolute path, or the URL as given."""
    files: Files
    store: Store

    @classmethod
    def open(cls, url: str | Path) -> Workspace:
        """Open a workspace, creating it where it is absent.

        Args:
            url: a folder, a `file://` URL, or any fsspec URL such as `s3://bucket/prefix`.

        Raises:
            WorkspaceError: if the URL is not understood, its driver is not installed, or it cannot be written.
        """
        text = str(url)
        folder = _local_folder(text)
        workspace = _open_remote(text.rstrip("/")) if folder is None else _open_local(folder)
        workspace.check_writable()
        return workspace

    def artifact(self, where: ArtifactRef | str) -> Artifact:
        """An artifact by its reference, or, for reading only, by its path.

        The path of a reference is looked up in this workspace, wherever the reference was made.
        """
        path, digest = (where, None) if isinstance(where, str) else (where.path, where.digest)
        return Artifact(
            workspace_url=self.url, files=self.files, store=self.store, path=checked_path(path), digest=digest
        )

    def ref(self, path: str, digest: str) -> ArtifactRef:
        """The reference of an artifact that may or may not exist yet."""
        return ArtifactRef(workspace=self.url, path=checked_path(path), digest=digest)

    def usage(self, path: str = "") -> int:
        """Bytes kept below a path, or in the whole workspace."""
        return sum(self.files.sizes(checked_path(path) if path else "").values())

    def check_writable(self) -> None:
        """Write and remove a small file.

        Raises:
            WorkspaceError: if that fails.
        """
        key = f".partial-probe-{uuid.uuid4().hex[:12]}"
        try:
            self.files.write(key, b"")
            self.files.delete([key])
        except Exception as error:  # noqa: BLE001  # each driver has errors of its own, which cannot be named here
            _fail(self.url, f"it cannot be written ({_first_line(error)})", error)


def open_artifact(ref: ArtifactRef) -> Artifact:
    """The artifact that a reference names, in the reference's own workspace."""
    return Workspace.open(ref.workspace).artifact(ref)


def _local_folder(url: str) -> Path | None:
    """The folder that a plain path or a file:// URL names; None for other URLs."""
    if not url:
        raise WorkspaceError("a workspace needs a folder or a URL, got an empty string")
    if "://" not in url:
        return Path(url).expanduser().absolute()
    parts = urlsplit(url)
    if parts.scheme not in ("file", "local"):
        return None
    if parts.netloc not in ("", "localhost"):
        _fail(url, "a file:// URL starts with three slashes and an absolute path")
    return Path(unquote(parts.path))


def _open_local(folder: Path) -> Workspace:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _fail(str(folder), f"the folder cannot be created ({error.strerror or error})", error)
    return Workspace(url=str(folder), files=LocalFiles(folder), store=LocalStore(folder))


def _open_remote(url: str) -> Workspace:
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
        store = FsspecStore.from_url(url)
    except ImportError as error:
        _fail(url, f"a Python package is missing: {_first_line(error)}", error)
    except Exception as error:  # noqa: BLE001  # each driver has errors of its own, which cannot be named here
        _fail(url, _first_line(error), error)
    return Workspace(url=url, files=RemoteFiles(filesystem, root.rstrip("/")), store=store)


def _fail(url: str, why: str, cause: BaseException | None = None) -> NoReturn:
    raise WorkspaceError(f"cannot use the workspace {url}: {why}") from cause


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
