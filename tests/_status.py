"""Status tables whose files can be watched, and processes that die at a chosen operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from storage.files import Files, is_partial
from storage.status_table import StatusRecord, StatusTable
from storage.workspace import Workspace

__all__ = [
    "FOLDER",
    "FragileFiles",
    "HookedFiles",
    "KilledError",
    "attempts",
    "die",
    "done",
    "failed",
    "filled",
    "hooked",
    "names",
    "started",
    "table",
]

FOLDER = "tables/status/nightly"


class KilledError(Exception):
    """Raised where a process dies."""


class HookedFiles:
    """Files that call a function before a method does its work; the function may raise."""

    def __init__(self, files: Files, **hooks: Callable[..., None]) -> None:
        self._files, self._hooks = files, hooks

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._files, name)
        if name not in self._hooks:
            return method

        def call(*arguments: Any) -> Any:
            self._hooks[name](*arguments)
            return method(*arguments)

        return call


class FragileFiles(HookedFiles):
    """Files of a process that dies at one of its writes and removals: the n-th, or never."""

    def __init__(self, files: Files, operations: int | None) -> None:
        super().__init__(files, write=self._count)
        self._left = operations

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._count()
            self._files.delete([key])

    def _count(self, *_: object) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise KilledError


def table(workspace: Workspace, run: str = "r") -> StatusTable:
    return StatusTable(workspace, "nightly", run=run)


def hooked(workspace: Workspace, **hooks: Callable[..., None]) -> StatusTable:
    return table(replace(workspace, files=HookedFiles(workspace.files, **hooks)))


def die(*_: object) -> None:
    raise KilledError


def done(row: str, attempts: int = 1, **others: Any) -> StatusRecord:
    return StatusRecord(id=row, state="done", attempts=attempts, **others)


def failed(row: str, **others: Any) -> StatusRecord:
    return StatusRecord(id=row, state="failed", **others)


def started(row: str, attempts: int = 1) -> StatusRecord:
    return StatusRecord(id=row, state="running", attempts=attempts)


def attempts(frame: pd.DataFrame) -> list[tuple[str, int]]:
    return [(str(row), int(count)) for row, count in zip(frame["id"], frame["attempts"], strict=True)]


def names(workspace: Workspace) -> set[str]:
    return {name for name in workspace.files.sizes(FOLDER) if not is_partial(name)}


def filled(workspace: Workspace, count: int = 4) -> StatusTable:
    status = table(workspace)
    for number in range(count):
        status.append([started(f"row{number}"), done(f"row{number}")])
    return status
