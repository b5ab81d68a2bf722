"""Cancelling: a run that was cancelled, and a stage that has run out of time, end at the stage's next step or frame.

Prefect raises an error in the main thread of a flow's process when the run is cancelled. It cannot interrupt the
threads in which stages run, nor the workers of a cluster: stages look for themselves, with `raise_if_stopped`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from uuid import UUID

import httpx
from prefect import State
from prefect.client.orchestration import SyncPrefectClient
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import CancelledRun, PrefectException
from prefect.futures import PrefectFuture
from prefect.states import Cancelled
from prefect.transactions import get_transaction

__all__ = [
    "RunCancelled",
    "cancellable_flow",
    "cancellable_task",
    "raise_if_stopped",
    "time_limit",
    "wait_for_future",
]

T = TypeVar("T")
_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_BETWEEN_LOOKS_OF_A_FLOW = 0.5  # at a flag in the same process
_STOPPED = ("CANCELLING", "CANCELLED", "CRASHED")  # of a run that has crashed nobody reads the results


class RunCancelled(Exception):
    """The run was cancelled; what its stages have stored stays, and another run resumes from there."""


@dataclass(slots=True)
class _Scope:
    """A run or a stage that can be stopped, and the one that it belongs to."""

    parent: _Scope | None
    cancelled: threading.Event = field(default_factory=threading.Event)
    ends: float | None = None
    """Time of the monotonic clock, seconds, after which it has run out of time."""


_SCOPE: ContextVar[_Scope | None] = ContextVar("wave_cancel_scope", default=None)


def raise_if_stopped() -> None:
    """Return at once while the present stage is to go on; called at every step and every frame.

    Raises:
        RunCancelled: if the run of the stage, or one that it belongs to, was cancelled.
        TimeoutError: if the stage has run out of time.
    """
    scope = _SCOPE.get()
    while scope is not None:
        if scope.cancelled.is_set():
            raise RunCancelled("The run was cancelled.")
        if scope.ends is not None and time.monotonic() >= scope.ends:
            raise TimeoutError("The stage has run out of time.")
        scope = scope.parent


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let `raise_if_stopped` raise once so many seconds have passed in this context."""
    with _scope(_Scope(_SCOPE.get(), ends=time.monotonic() + seconds)):
        yield


def cancellable_flow(run: Callable[[], T]) -> T:
    """Call the body of a flow, and end the stages that it has started as soon as its run is cancelled.

    The run is cancelled in Prefect, by a signal, or by a person at the keyboard; see `cancellable_task` for what is
    returned then. A termination signal is raised again: Prefect knows who sent it.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return run()
    return _cancellable(run, watched=(cast("SyncPrefectClient", context.client), context.flow_run.id))


def cancellable_task(run: Callable[[], T]) -> T:
    """Call the body of a task, and let it end as soon as the flow run that it belongs to is cancelled.

    Returns:
        What the body returns. In a run that was cancelled the state Cancelled takes its place, which Prefect gives to
        the task run or flow run; nothing is remembered as the task's result.

    Raises:
        RunCancelled: instead of that, outside of Prefect.
    """
    context = TaskRunContext.get()
    if context is None:
        return run()
    flow_run = context.task_run.flow_run_id
    # In the flow's own process the flow watches; a worker of a cluster has to look by itself
    remote = _SCOPE.get() is None and flow_run is not None
    return _cancellable(run, watched=(cast("SyncPrefectClient", context.client), flow_run) if remote else None)


def wait_for_future(future: PrefectFuture[Any]) -> None:
    """Wait until a task has ended, unless the run is cancelled: Prefect's own wait, in a thread, would not end then.

    Raises:
        RunCancelled, TimeoutError: see `raise_if_stopped`.
    """
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    while not done.wait(_SECONDS_BETWEEN_LOOKS_OF_A_FLOW):
        raise_if_stopped()


def _cancellable(run: Callable[[], T], *, watched: tuple[SyncPrefectClient, Any] | None) -> T:
    scope = _Scope(_SCOPE.get())
    with _scope(scope), _watching(scope, watched):
        try:
            return run()
        except (RunCancelled, CancelledRun, KeyboardInterrupt) as error:
            scope.cancelled.set()
            return cast("T", _cancelled(error))
        except BaseException as error:
            if not isinstance(error, Exception):
                scope.cancelled.set()
            raise


def _cancelled(error: BaseException) -> State[Any]:
    transaction = get_transaction()
    if transaction is not None:
        transaction.write_on_commit = False
    return Cancelled(message=str(error) or "The run was interrupted.")


@contextmanager
def _scope(scope: _Scope) -> Iterator[None]:
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)


@contextmanager
def _watching(scope: _Scope, watched: tuple[SyncPrefectClient, UUID] | None) -> Iterator[None]:
    """Cancel the scope when Prefect says that the flow run was cancelled."""
    if watched is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            if _is_stopped(*watched):
                scope.cancelled.set()
                return

    # In a thread, since each question to a server that is gone takes seconds
    threading.Thread(target=copy_context().run, args=(watch,), name="watch of a run", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _is_stopped(client: SyncPrefectClient, flow_run: UUID) -> bool:
    """Ask Prefect for the state of a flow run; a server that does not answer changes nothing."""
    try:
        state = client.read_flow_run(flow_run).state
    except (httpx.HTTPError, PrefectException, RuntimeError):  # the last: the client was closed meanwhile
        return False
    return state is not None and state.type.value in _STOPPED
