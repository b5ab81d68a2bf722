"""Prefect's results in a workspace at a URL, next to the artifacts that they refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import Task
from prefect.filesystems import WritableFileSystem
from pydantic import PrivateAttr

from storage.workspace import Workspace

__all__ = ["WorkspaceResults", "store_results"]

_FOLDER = "results"


class WorkspaceResults(WritableFileSystem):
    """The folder `results` of a workspace, as Prefect's storage of results; the server stores nothing of it."""

    _block_type_name = "Results in a workspace"

    url: str
    """The workspace."""
    _read: dict[str, bytes] = PrivateAttr(default_factory=dict)

    # Prefect calls methods that are not coroutines as well, and says so by `_sync`
    def read_path(self, path: str, *, _sync: bool = True) -> bytes:  # type: ignore[override]
        """Return a result by its key.

        Raises:
            FileNotFoundError: if there is none.
        """
        if path not in self._read:  # Prefect reads a result once to see whether it exists, and once for its value
            self._read[path] = Workspace.open(self.url).files.read(f"{_FOLDER}/{path}")
        return self._read[path]

    def write_path(self, path: str, content: bytes, *, _sync: bool = True) -> None:  # type: ignore[override]
        """Store a result under its key."""
        Workspace.open(self.url).files.write(f"{_FOLDER}/{path}", content)
        self._read.pop(path, None)

    def _resolve_path(self, path: str) -> None:
        """Return None: keys are not paths of a local folder."""


def store_results(task: Task[..., Any], workspace: str) -> None:
    """Let a task, made for one submission, keep its result in a workspace, given by its path or URL."""
    if "://" in workspace:
        # The constructor accepts blocks only that are saved on the server, which then belong to all workspaces
        task.result_storage = WorkspaceResults(url=workspace)
    else:
        task.result_storage = Path(workspace) / _FOLDER
