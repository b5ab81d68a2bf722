"""How every stage becomes a Prefect task: cached by digest, retried when that can help, named for a person."""

from __future__ import annotations

import errno
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prefect import State, Task, task
from prefect.futures import PrefectFuture

from storage.digest import digest_of
from storage.reference import ArtifactRef
from storage.workspace import open_artifact
from tasks.planning.plan import EditPlan, Stage

__all__ = ["FrameRange", "StageTask", "is_transient", "measured", "part_name", "stage_task"]

FrameRange = tuple[int, int]
RETRY_DELAYS = [2.0, 15.0]
_TRANSIENT_ERRORS = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE, errno.ENETUNREACH}
_TRANSIENT_NAMES = {
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "httpx.TransportError",
    "aiohttp.ClientConnectionError",
}


@dataclass(frozen=True, slots=True)
class StageTask:
    """A stage's task, and how it is handed to the runner."""

    name: str
    task: Task[..., ArtifactRef]

    def tagged(self, *tags: str) -> StageTask:
        """Give the same stage with other tags, where a run decides where it is placed."""
        return StageTask(self.name, self.task.with_options(tags=["wave", *tags]))

    def submit(self, plan: EditPlan, *inputs: Any) -> PrefectFuture[ArtifactRef]:
        """Submit it, with results kept in the workspace.

        A result that Prefect remembers counts only where the workspace holds the whole artifact.
        """
        stage: Stage = getattr(plan, self.name)
        options: dict[str, Any] = {"refresh_cache": not _is_done(stage, inputs)}
        if "://" not in stage.ref.workspace:
            options["result_storage"] = Path(stage.ref.workspace) / "results"
        return self.task.with_options(**options).submit(plan, *inputs)


def stage_task(name: str, *tags: str, what: str = "") -> Callable[[Callable[..., ArtifactRef]], StageTask]:
    """Make the task of a stage from a function of (plan, *inputs) that returns the stage's reference.

    An input named `interval` makes a task for a part of the stage.

    Args:
        name: the stage's name in the plan.
        tags: where it runs, cpu or gpu.
        what: added to the stage's title in the name of the task run.
    """

    def cache_key(_: Any, parameters: dict[str, Any]) -> str:
        stage: Stage = getattr(parameters["plan"], name)
        # A result names its workspace: one that was moved or copied must not lead back to where it was
        place = digest_of(stage.ref.workspace)[:8]
        return f"{stage.name}-{stage.ref.digest}{_suffix(parameters.get('interval'))}-{place}"

    def run_name(*, parameters: dict[str, Any]) -> str:
        stage: Stage = getattr(parameters["plan"], name)
        interval = parameters.get("interval")
        return stage.title + (what if interval is None else f", frames {interval[0]} to {interval[1]}")

    def make(function: Callable[..., ArtifactRef]) -> StageTask:
        made = task(
            name=name.replace("_", " "),
            tags=["wave", *tags],
            cache_key_fn=cache_key,
            task_run_name=cast("Any", run_name),  # called with the parameters, by their name
            persist_result=True,
            result_serializer="json",
            cache_result_in_memory=False,
            retries=len(RETRY_DELAYS),
            retry_delay_seconds=RETRY_DELAYS,
            retry_condition_fn=_worth_retrying,
        )
        return StageTask(name, made(function))

    return make


def part_name(interval: FrameRange) -> str:
    """Name the part of an artifact that one interval of frames is."""
    return f"{interval[0]:06d}-{interval[1]:06d}"


@contextmanager
def measured() -> Iterator[Callable[[], dict[str, float]]]:
    """Give a function that tells the seconds since the context began and the process's peak memory in MiB."""
    start = time.perf_counter()
    unit = 2**20 if sys.platform == "darwin" else 2**10

    def figures() -> dict[str, float]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"seconds": round(time.perf_counter() - start, 2), "peak_memory_mib": round(peak / unit, 1)}

    yield figures


def is_transient(error: BaseException) -> bool:
    """Tell whether the same call may succeed a little later: lost connections, time-outs, no memory on the GPU."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRORS:
        return True
    return any(f"{kind.__module__}.{kind.__qualname__}" in _TRANSIENT_NAMES for kind in type(error).__mro__)


def _worth_retrying(_task: Any, _run: Any, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_transient(error)


def _is_done(stage: Stage, inputs: tuple[Any, ...]) -> bool:
    artifact = open_artifact(stage.ref)
    if artifact.is_complete():
        return True
    intervals = [item for item in inputs if isinstance(item, tuple)]
    return bool(intervals) and part_name(intervals[0]) in artifact.completed_parts()


def _suffix(interval: FrameRange | None) -> str:
    return "" if interval is None else f"-{part_name(interval)}"
