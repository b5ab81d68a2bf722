"""Errors of the storage package: one sentence each, with what is wrong, where, and what to do."""

from __future__ import annotations

__all__ = ["StorageError", "VideoError", "WorkspaceError"]


class StorageError(ValueError):
    """An argument, or a file in storage, cannot be used."""


class VideoError(StorageError):
    """A video file cannot be read or written."""


class WorkspaceError(StorageError):
    """A workspace, or an artifact in it, cannot be used."""
