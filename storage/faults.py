"""Faults of storage, on purpose: writes that fail, are cut short, or end the process.

A program that resumes can be tested only by interrupting it. Inside `Faults.injected` each write of every workspace
that is opened is counted, whether it goes through the files or through Zarr's store, and a function decides by its
number and its key what happens to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import WrapperStore

from storage.errors import UnreachableError
from storage.files import Files
from storage.workspace import Workspace, intercepted_workspaces

__all__ = ["Effect", "Faults"]

Effect = Literal["error", "kill", "half", "lost"]
"""What happens to a write: an input/output error before it; SIGKILL before it; half of its bytes and then the error,
as where a writer is cut off; or the whole of it and then the error, as where the answer of a store is lost."""


@dataclass(slots=True, kw_only=True)
class Faults:
    """Writes that are counted, and that fail as a function decides."""

    choose: Callable[[int, str], Effect | None] = lambda number, key: None
    """Of the number of a write, from 0, and its key: what happens to it; None for nothing."""
    keys: list[str] = field(default_factory=list)
    """The keys of all writes that were begun, in their order."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def injected(self) -> Iterator[None]:
        """Let the writes of workspaces that are opened inside the context fail, in whatever thread they happen."""
        with intercepted_workspaces(self._intercept):
            yield

    def begin(self, key: str) -> Effect | None:
        """Count a write and return what happens to it; a write that kills the process does not return.

        Raises:
            OSError: if it fails before it has begun.
        """
        with self._lock:
            effect = self.choose(len(self.keys), key)
            self.keys.append(key)
        if effect == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if effect == "error":
            _fail(key, effect)
        return effect

    def _intercept(self, workspace: Workspace) -> Workspace:
        files: Any = _FailingFiles(workspace.files, self)
        return replace(workspace, files=files, store=_FailingStore(workspace.store, self))


def _fail(key: str, effect: Effect) -> NoReturn:
    if effect == "lost":
        raise UnreachableError(f"the answer to the write of {key} was made to fail")
    raise OSError(errno.EIO, "the write was made to fail", key)


@dataclass(frozen=True, slots=True)
class _FailingFiles:
    """Files of which some writes fail; everything else is the files' own."""

    _files: Files
    _faults: Faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def write(self, key: str, data: bytes) -> None:
        effect = self._faults.begin(key)
        self._files.write(key, data[: len(data) // 2] if effect == "half" else data)
        if effect is not None:
            _fail(key, effect)

    @contextlib.contextmanager
    def local_output(self, key: str) -> Iterator[Path]:
        with self._files.local_output(key) as path:
            yield path
            effect = self._faults.begin(key)
            if effect == "half":
                os.truncate(path, path.stat().st_size // 2)
        if effect is not None:
            _fail(key, effect)


class _FailingStore(WrapperStore[Store]):
    """A Zarr store of which some writes fail."""

    def __init__(self, store: Store, faults: Faults) -> None:
        super().__init__(store)
        self._faults = faults

    def _with_store(self, store: Store) -> _FailingStore:
        return type(self)(store, self._faults)

    async def set(self, key: str, value: Buffer) -> None:
        effect = self._faults.begin(key)
        await super().set(key, _half(value) if effect == "half" else value)
        if effect is not None:
            _fail(key, effect)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        effect = self._faults.begin(key)
        await super().set_if_not_exists(key, _half(value) if effect == "half" else value)
        if effect is not None:
            _fail(key, effect)


def _half(value: Buffer) -> Buffer:
    data = value.to_bytes()
    return default_buffer_prototype().buffer.from_bytes(data[: len(data) // 2])
