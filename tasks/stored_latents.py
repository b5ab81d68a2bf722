"""The latents of all steps, stored behind the step that is computed and read ahead of it, so that neither waits.

Only the thread of the stage calls CUDA: a call of another thread would end the capture of a CUDA graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from storage.row_access import RowWriter
from tasks.artifacts import finite_latents
from tasks.cancel import RunCancelled

__all__ = ["reading_ahead", "storing_behind"]

_BACKLOG: Final = 2
"""Steps that are computed and not yet stored, at most."""


@contextmanager
def storing_behind(rows: RowWriter) -> Iterator[Callable[[Tensor, int], None]]:
    """Yield a function that stores the latents of a step while the next steps are computed.

    It receives (x_j, j), any device; x_j must not be changed afterwards. Leaving the context waits until all steps are
    stored, also after an error. An error of storing is raised as it is, by a later call or on leaving, and nothing that
    follows it is stored; it comes before an error of the context, as if each step had been stored at once.

    Args:
        rows: receives the rows in the order of the calls, in another thread, and is flushed on leaving.

    Raises:
        NonFiniteError: with the step, if latents are NaN or infinite.
        WorkspaceError, OSError: of the writer.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="storing latents") as thread:
        steps = _Steps(rows, thread)
        try:
            yield steps.append
        except RunCancelled:
            with suppress(Exception):
                steps.wait()
            raise
        except Exception:
            steps.wait()
            raise
        steps.wait()
    rows.flush()


@contextmanager
def reading_ahead(
    read: Callable[[int], Tensor], *, device: torch.device | None = None
) -> Iterator[Callable[[int], Tensor]]:
    """Yield a function that returns the latents x_j of a step j while x_{j-1} is read, which is asked for next.

    It raises the errors of `read`, for the step that was asked for.

    Args:
        read: returns x_j on the CPU; called in another thread, for one step after the other.
        device: where a CUDA device computes, what is returned is on it already.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reading latents") as thread:
        found: dict[int, Future[Tensor]] = {}

        def latents(step_index: int) -> Tensor:
            nonlocal found
            wanted = (step_index, step_index - 1)[: step_index + 1]
            found = {j: found[j] if j in found else _submit(thread, read, j) for j in wanted}
            x = found[step_index].result()
            return x.pin_memory().to(device, non_blocking=True) if device is not None and device.type == "cuda" else x

        yield latents


def _submit(thread: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Call a function in a thread, in the context of the caller: the run that its messages belong to, and its end."""
    return thread.submit(copy_context().run, function, *arguments)


@dataclass(frozen=True, slots=True)
class _Copy:
    """Latents that are on their way from a CUDA device."""

    x: Tensor
    step_index: int
    end: torch.cuda.Event


@dataclass(slots=True)
class _Steps:
    """Steps on their way to the store."""

    rows: RowWriter
    thread: ThreadPoolExecutor
    running: deque[Future[None]] = field(default_factory=deque)
    copying: _Copy | None = None
    failed: bool = False
    """Whether a step was begun and not stored: those after it must not take its place."""

    def append(self, x: Tensor, step_index: int) -> None:
        """Store a step; on a CUDA device, once it has computed the next one."""
        if x.device.type != "cuda":
            self._store_next(x.cpu(), step_index)
            return
        self._end_copy()
        host = torch.empty_like(x, device="cpu", pin_memory=True).copy_(x, non_blocking=True)
        end = torch.cuda.Event(blocking=True)
        end.record(torch.cuda.current_stream(x.device))
        self.copying = _Copy(host, step_index, end)

    def wait(self) -> None:
        """Wait until all steps are stored, or raise the error of the first that was not."""
        self._end_copy()
        while self.running:
            self.running.popleft().result()

    def _end_copy(self) -> None:
        copy, self.copying = self.copying, None
        if copy is not None:
            copy.end.synchronize()
            self._store_next(copy.x, copy.step_index)

    def _store_next(self, x: Tensor, step_index: int) -> None:
        while self.running and (self.running[0].done() or len(self.running) == _BACKLOG):
            self.running.popleft().result()
        self.running.append(_submit(self.thread, self._store, x, step_index))

    def _store(self, x: Tensor, step_index: int) -> None:
        if self.failed:
            return
        self.failed = True
        self.rows.append(finite_latents(x, step_index))
        self.failed = False
