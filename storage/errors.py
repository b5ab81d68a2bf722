"""Errors of the storage package: one sentence each, with what is wrong, where, and what to do."""

from __future__ import annotations

__all__ = ["AbsentError", "DamagedError", "StorageError", "UnreachableError", "VideoError", "WorkspaceError"]


class StorageError(ValueError):
    """An argument, or a file in storage, cannot be used."""


class VideoError(StorageError):
    """A video file cannot be read or written."""


class WorkspaceError(StorageError):
    """A workspace, or an artifact in it, cannot be used."""


class AbsentError(WorkspaceError):
    """An artifact does not contain an array or a file."""


class DamagedError(WorkspaceError):
    """Stored bytes fail their checksum."""


class UnreachableError(WorkspaceError, ConnectionError):
    """The store of a workspace does not answer; the same call may succeed later."""
