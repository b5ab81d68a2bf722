"""Errors of the storage package: one sentence each, with what is wrong, where, and what to do."""

from __future__ import annotations

__all__ = [
    "AbsentError",
    "DamagedError",
    "StorageError",
    "UnreachableError",
    "VideoError",
    "WorkspaceError",
    "printable",
]


def printable(text: str) -> str:
    """Return a text, which may have words of a stranger, with control characters, which terminals obey, spelt out."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class StorageError(ValueError):
    """An argument, or a file in storage, cannot be used."""

    def __str__(self) -> str:
        return printable(super().__str__())


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
