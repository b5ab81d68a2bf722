"""Failures of rows: their kinds, and when a run of many rows stops by itself."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Literal

from storage.errors import StorageError, WorkspaceError
from tasks.errors import TaskInputError
from tasks.stage import is_transient
from wave_ops.errors import WaveOpsError

__all__ = ["ErrorKind", "FailureBudget", "error_kind", "may_heal"]

ErrorKind = Literal["input", "transient", "disk full", "memory", "workspace", "unexpected"]
_HEALING = {"transient", "memory", "unexpected"}
_IN_A_ROW = 10


def error_kind(error: BaseException) -> ErrorKind:
    """Return the kind of an error, from the error itself or from those that caused it."""
    causes = list(_chain(error))
    if any(isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT} for cause in causes):
        return "disk full"
    if any(is_transient(cause) for cause in causes):
        return "transient"
    if any(isinstance(cause, MemoryError) for cause in causes):
        return "memory"
    if isinstance(error, WorkspaceError):
        return "workspace"
    return "input" if isinstance(error, TaskInputError | StorageError | WaveOpsError) else "unexpected"


def may_heal(kind: ErrorKind) -> bool:
    """Return whether another attempt may succeed; bad input stays bad."""
    return kind in _HEALING


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@dataclass(slots=True, kw_only=True)
class FailureBudget:
    """Decides when a run of many rows stops: too many failures, one cause again and again, or a full disk."""

    allowed: int | None
    """Rows that may fail; None for any number."""
    in_a_row: int = _IN_A_ROW
    """Rows that may fail one after the other with the same message."""
    failed: int = 0
    _last: str = ""
    _repeated: int = field(default=0)

    def succeed(self) -> None:
        """Count a row that was done."""
        self._last, self._repeated = "", 0

    def fail(self, kind: ErrorKind, message: str) -> str:
        """Count a row that failed; return why the run must stop, or an empty string."""
        self.failed += 1
        cause = f"{kind}: {message}"
        self._repeated = self._repeated + 1 if cause == self._last else 1
        self._last = cause
        if kind == "disk full":
            return "the disk is full"
        if self.allowed is not None and self.failed > self.allowed:
            return f"failed rows: {self.failed}, more than the {self.allowed} allowed"
        if self._repeated >= self.in_a_row:
            return f"{self._repeated} rows in a row have failed with one cause ({message})"
        return ""
