"""A full disk in one sentence: the workspace, what is free, and about how much an edit still needs."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.filesize import decimal

from storage.errors import WorkspaceError
from storage.free_disk import free_bytes
from tasks.planning.plan import EditPlan
from tasks.planning.stages import STAGES, StageSettings, StageSpec

__all__ = ["named_full_disk", "named_full_temporary_folder"]

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def named_full_disk(plan: EditPlan, spec: StageSpec[StageSettings]) -> Iterator[None]:
    """Raise a full disk in this context as an error that says what to do.

    Args:
        plan: of the clip or the shot that is computed.
        spec: the stage that runs.

    Raises:
        WorkspaceError: for a full disk, or a quota that is used up, with the operating system's error as its cause.
    """
    with _named(lambda: _sentence(plan, spec)):
        yield


@contextmanager
def named_full_temporary_folder() -> Iterator[None]:
    """Raise a full disk in this context, in which only temporary files are written, as an error that says what to do.

    Raises:
        WorkspaceError: for a full disk, or a quota that is used up, with the operating system's error as its cause.
    """
    folder = tempfile.gettempdir()
    with _named(
        lambda: (
            f"the disk of temporary files, {folder}, is full; make room, or choose another folder by TMPDIR, and run "
            "the same command again"
        )
    ):
        yield


@contextmanager
def _named(sentence: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise WorkspaceError(sentence()) from error


def _sentence(plan: EditPlan, spec: StageSpec[StageSettings]) -> str:
    workspace = plan.execution.workspace
    begun = False
    needed = 0
    for each in STAGES:
        begun = begun or each is spec
        if begun and any(stage.name == each.name for stage in plan.stages):
            needed += each.load(plan).array_bytes
    known = free_bytes(workspace)
    free = "" if known is None else f": {decimal(known)} are free"
    return (
        f"the disk is full while {spec.name} of {plan.name} is stored in {workspace}{free}, and what is left needs up "
        f"to {decimal(needed)}; make room, or choose another WAVE_WORKSPACE, and run the same command again"
    )
