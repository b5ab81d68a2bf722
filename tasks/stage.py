"""How every stage becomes a Prefect task: cached by digest, retried when that can help, named for a person."""

from __future__ import annotations

import errno
import functools
import inspect
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, cast

from prefect import State, Task, task
from prefect.futures import PrefectFuture

from storage.artifact import Artifact
from storage.claims import claim
from storage.digest import digest_of
from storage.reference import ArtifactRef
from storage.workspace import Workspace, open_artifact
from tasks.planning.plan import EditPlan
from tasks.planning.stages import Resource, StageSettings, StageSpec
from tasks.result_storage import store_results

__all__ = ["RETRIES", "FrameRange", "StageTask", "is_transient", "measured", "part_name", "stage_task"]

FrameRange = tuple[int, int]
"""First and last frame, both included."""
_TRANSIENT_ERRORS = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE, errno.ENETUNREACH}
_TRANSIENT_NAMES = {
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "httpx.TransportError",
    "aiohttp.ClientConnectionError",
}


def is_transient(error: BaseException) -> bool:
    """Return whether a retry may succeed: lost connections, time-outs, a GPU that is out of memory."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRORS:
        return True
    return any(f"{kind.__module__}.{kind.__qualname__}" in _TRANSIENT_NAMES for kind in type(error).__mro__)


def _may_succeed_later(_task: Any, _run: Any, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_transient(error)


RETRIES: Final = MappingProxyType(
    {"retries": 2, "retry_delay_seconds": [2.0, 15.0], "retry_condition_fn": _may_succeed_later}
)
"""The one retry policy, as keyword arguments of `prefect.task`."""


@dataclass(frozen=True, slots=True)
class StageTask:
    """A stage's task, and how it is submitted to the runner."""

    spec: StageSpec[StageSettings]
    task: Task[..., ArtifactRef]

    def runs_on(self, plan: EditPlan) -> Resource:
        """Return the resource of a worker that the stage needs."""
        return self.spec.runs_on(plan)

    def submit(self, plan: EditPlan, *inputs: Any) -> PrefectFuture[ArtifactRef]:
        """Submit the stage, with its result kept in the workspace.

        A result that Prefect remembers counts only where the workspace contains the whole artifact.
        """
        return self._submit(plan, *inputs, stored=open_artifact(plan[self.spec].ref).is_complete())

    def submit_intervals(self, plan: EditPlan, *inputs: Any) -> list[PrefectFuture[ArtifactRef]]:
        """Submit one task for each interval between keyframes, after listing the workspace once for all of them."""
        artifact = open_artifact(plan[self.spec].ref)
        stored = _stored_intervals(artifact, plan)
        return [
            self._submit(plan, *inputs, interval, stored=part_name(interval) in stored) for interval in plan.intervals
        ]

    def _submit(self, plan: EditPlan, *inputs: Any, stored: bool) -> PrefectFuture[ArtifactRef]:
        task = self.task.with_options(refresh_cache=not stored, tags=["wave", self.runs_on(plan)])
        store_results(task, plan.execution.workspace)
        return task.submit(plan, *inputs)


def stage_task(spec: StageSpec[StageSettings], *, what: str = "") -> Callable[[Callable[..., ArtifactRef]], StageTask]:
    """Make the task of a stage from a function of (plan, *inputs) that returns the stage's reference.

    An input named `interval` makes a task for a part of the stage. The function runs inside the claim of its artifact,
    or of its part: of several runs at the same time one computes it, and the others wait and find it complete.

    Args:
        spec: the stage's row in the table.
        what: added to the stage's title in the name of the task run.
    """

    def cache_key(_: Any, parameters: dict[str, Any]) -> str:
        ref = parameters["plan"][spec].ref
        # A result names its workspace: one that was moved or copied must not lead back to where it was
        return f"{spec.name}-{ref.digest}{_suffix(parameters.get('interval'))}-{digest_of(ref.workspace)[:8]}"

    def run_name(*, parameters: dict[str, Any]) -> str:
        title: str = parameters["plan"][spec].title
        interval = parameters.get("interval")
        return title + (what if interval is None else f", frames {interval[0]} to {interval[1]}")

    def make(function: Callable[..., ArtifactRef]) -> StageTask:
        made = task(
            name=spec.name.replace("_", " "),
            cache_key_fn=cache_key,
            task_run_name=cast("Any", run_name),  # called with the parameters, by their name
            persist_result=True,
            result_serializer="json",
            cache_result_in_memory=False,
            **cast("Any", RETRIES),
        )
        return StageTask(spec, made(_claimed(spec, function)))

    return make


def _claimed(spec: StageSpec[StageSettings], function: Callable[..., ArtifactRef]) -> Callable[..., ArtifactRef]:
    """Return the function of a stage, made to wait for the claim of what it computes."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(*args: Any, **inputs: Any) -> ArtifactRef:
        given = signature.bind(*args, **inputs).arguments
        ref, interval = given["plan"][spec].ref, given.get("interval")
        name = ref.path if interval is None else f"{ref.path}/{part_name(interval)}"
        with claim(Workspace.open(ref.workspace), name):
            return function(*args, **inputs)

    return run


def part_name(interval: FrameRange) -> str:
    """Name the part of an artifact that one interval of frames makes."""
    return f"{interval[0]:06d}-{interval[1]:06d}"


@contextmanager
def measured() -> Iterator[Callable[[], dict[str, float]]]:
    """Yield a function that returns the seconds since the context began and the process's peak memory in MiB."""
    start = time.perf_counter()
    unit = 2**20 if sys.platform == "darwin" else 2**10

    def measure() -> dict[str, float]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"seconds": round(time.perf_counter() - start, 2), "peak_memory_mib": round(peak / unit, 1)}

    yield measure


def _stored_intervals(artifact: Artifact, plan: EditPlan) -> set[str]:
    return (
        {part_name(interval) for interval in plan.intervals} if artifact.is_complete() else artifact.completed_parts()
    )


def _suffix(interval: FrameRange | None) -> str:
    return "" if interval is None else f"-{part_name(interval)}"
