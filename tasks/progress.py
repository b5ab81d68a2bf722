"""Progress of a stage: for a bar in the terminal, and as a progress artifact in Prefect's UI."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectHTTPStatusError

from tasks.cancel import raise_if_stopped
from tasks.planning.stages import Stage, StageSettings

__all__ = [
    "PROGRESS_TOPIC",
    "Listener",
    "StageProgress",
    "counted",
    "current_listener",
    "listening",
    "report_rows",
    "stage_progress",
]

T = TypeVar("T")

Listener: TypeAlias = Callable[[str, str, int, int], None]
"""Called with a stage's name, the part of it, the units done in that part, and all units of that part."""

_LISTENER: ContextVar[Listener | None] = ContextVar("wave_progress_listener", default=None)
PROGRESS_TOPIC = "wave-progress"
"""Topic of the events by which a worker of a Dask cluster reports progress: run, stage, part, done and total. `run` is
the ID of the flow run that the stage belongs to; there is one topic for all runs, since a scheduler keeps each."""
SECONDS_BETWEEN_UPDATES = 2.0
_SECONDS_BETWEEN_EVENTS = 0.25
_LOG = logging.getLogger(__name__)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call a listener with the progress of the stages that run in this process."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def current_listener() -> Listener | None:
    """Return the listener of this context."""
    return _LISTENER.get()


def report_rows(done: int, total: int) -> None:
    """Report to the listener that `done` of all rows of a data set have ended, as a stage of the name `rows`."""
    if (listener := _LISTENER.get()) is not None:
        listener("rows", "", done, total)


@dataclass(slots=True, kw_only=True)
class StageProgress:
    """The progress of one task."""

    stage: Stage[StageSettings]
    total: int
    part: str = ""
    _artifact: UUID | None = None
    _reported: float = field(default_factory=time.monotonic)
    _sent: float = 0.0

    def report(self, done: int) -> None:
        """Report that `done` of all units are done.

        Raises:
            RunCancelled, TimeoutError: if the stage is to end; see `raise_if_stopped`.
        """
        raise_if_stopped()
        listener = _LISTENER.get()
        if listener is not None:
            listener(self.stage.name, self.part, done, self.total)
        else:
            self._send(done)
        now = time.monotonic()
        if now - self._reported >= SECONDS_BETWEEN_UPDATES or (self._artifact is not None and done == self.total):
            self._reported = now
            self._publish(100.0 * done / max(self.total, 1))

    def _send(self, done: int) -> None:
        """Send an event to the flow's process, if this one is a worker of a Dask cluster; not too many of them."""
        distributed, context, now = sys.modules.get("distributed"), TaskRunContext.get(), time.monotonic()
        if distributed is None or context is None:
            return
        if 0 < done < self.total and now - self._sent < _SECONDS_BETWEEN_EVENTS:
            return
        self._sent = now
        run = str(context.task_run.flow_run_id)
        event = {"run": run, "stage": self.stage.name, "part": self.part, "done": done, "total": self.total}
        with suppress(ValueError):  # not a worker
            distributed.get_worker().log_event(PROGRESS_TOPIC, event)

    def _publish(self, percent: float) -> None:
        """Update Prefect's artifact; it first appears on a stage that has lasted a while."""
        if TaskRunContext.get() is None:
            return
        try:
            if self._artifact is None:
                key = f"{self.stage.name.replace('_', '-')}-progress-{self.stage.ref.digest}"
                created = create_progress_artifact(percent, key=key, description=self.stage.title)
                self._artifact = created if isinstance(created, UUID) else None
            else:
                update_progress_artifact(self._artifact, percent)
        except (httpx.HTTPError, PrefectHTTPStatusError):
            return  # a server that is gone for a moment must not fail a stage that runs well


@contextmanager
def stage_progress(
    stage: Stage[StageSettings], *, total: int, done: int = 0, part: str = ""
) -> Iterator[StageProgress]:
    """Report a stage from `done` units to `total`; leaving without an error reports all of them."""
    if 0 < done < total:
        _LOG.info("%s: resumed after %d of %d", stage.title, done, total)
    # The shots of a clip have the same stages: the digest distinguishes their parts
    progress = StageProgress(stage=stage, total=total, part=f"{stage.ref.digest} {part}".strip())
    progress.report(done)
    yield progress
    progress.report(total)


def counted(items: Iterable[T], progress: StageProgress) -> Iterator[T]:
    """Yield the items and report how many have been yielded."""
    for done, item in enumerate(items, start=1):
        yield item
        progress.report(min(done, progress.total))
