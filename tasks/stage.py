"""How every stage becomes a Prefect task: cached by digest, retried when that can help, named for a person."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, cast

from prefect import State, Task, task
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run, task_run

from storage.claims import claim
from storage.digest import digest_of
from storage.job_table import JobRecord, JobTable
from storage.reference import ArtifactRef
from storage.workspace import Workspace, open_artifact
from tasks.cancel import cancellable_task, raise_if_stopped, time_limit
from tasks.freed_memory import keep_few_heaps, return_freed_memory
from tasks.full_disk import named_full_disk
from tasks.logs import send_logs_to_run
from tasks.peak_memory import peak_memory
from tasks.planning.batches import Batch, Batching, Job, clip_batches, shot_batches
from tasks.planning.plan import EditPlan
from tasks.planning.stages import Resource, StageSettings, StageSpec
from tasks.prefect_clients import read_certificates_once
from tasks.result_storage import store_results

# Workers import this module with the first task that they run
keep_few_heaps()
read_certificates_once()

__all__ = ["RETRIES", "StageTask", "Submission", "is_transient", "measured", "stage_task"]

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
    {
        "retries": 4,
        "retry_delay_seconds": [1.0, 2.0, 3.0, 3.0],
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": _may_succeed_later,
    }
)
"""The one retry policy, as keyword arguments of `prefect.task`.

Delays vary at random, so that stages that lost the same server do not all come back at once. They are short, since
a run that is cancelled waits for them.
"""


@dataclass(frozen=True, slots=True)
class Submission:
    """The tasks of one stage of a clip, each with the frames of the clip that it belongs to."""

    futures: tuple[tuple[range, PrefectFuture[list[str]]], ...]
    stored: bool
    """Whether the workspace contained everything before."""

    def of(self, frames: range) -> list[PrefectFuture[list[str]]]:
        """Return the tasks that have a frame in common with a range."""
        return [future for own, future in self.futures if own.start < frames.stop and frames.start < own.stop]

    def result(self) -> None:
        """Wait for the tasks; raise the error of the first that failed."""
        for _, future in self.futures:
            future.result()


@dataclass(frozen=True, slots=True)
class StageTask:
    """A stage's task, and how it is submitted to the runner."""

    spec: StageSpec[StageSettings]
    task: Task[[tuple[Job, ...]], list[str]]
    batches: Batching

    def runs_on(self, plan: EditPlan) -> Resource:
        """Return the resource of a worker that the stage needs."""
        return self.spec.runs_on(plan)

    def submit(self, plan: EditPlan, *after: Submission) -> Submission:
        """Submit the tasks of the stage, each to begin when those of earlier stages that it reads from have ended.

        A result that Prefect remembers counts only where the workspace contains all artifacts of the task.
        """
        is_stored = _Stored(self.spec)
        futures, all_stored = [], True
        for batch in self.batches(plan):
            stored = all(map(is_stored, batch.jobs))
            all_stored = all_stored and stored
            task = self.task.with_options(refresh_cache=not stored, tags=["wave", self.runs_on(plan)])
            store_results(task, plan.execution.workspace)
            waits = [future for earlier in after for future in earlier.of(batch.frames)]
            futures.append((batch.frames, task.submit(batch.jobs, wait_for=waits, return_state=False)))
        return Submission(tuple(futures), stored=all_stored)

    def run(self, plan: EditPlan) -> None:
        """Compute the stage in this thread, without Prefect."""
        for batch in self.batches(plan):
            self.task.fn(batch.jobs)


class _Stored:
    """Whether the workspace contains what jobs compute, from one look at each artifact."""

    def __init__(self, spec: StageSpec[StageSettings]) -> None:
        self._spec = spec
        self._parts: dict[ArtifactRef, set[str] | None] = {}

    def __call__(self, job: Job) -> bool:
        ref = job.plan[self._spec].ref
        if ref not in self._parts:
            artifact = open_artifact(ref)
            complete = artifact.is_complete()
            self._parts[ref] = None if complete else artifact.completed_parts() if job.part is not None else set()
        parts = self._parts[ref]
        return parts is None or job.part in parts


def stage_task(
    spec: StageSpec[StageSettings], *, what: str = "", batches: Batching | None = None
) -> Callable[[Callable[[Job], object]], StageTask]:
    """Make the task of a stage from a function that computes one job.

    The function is called only if the job is not complete, inside the claim of what it writes: of several runs at the
    same time one computes it, and the others wait and find it complete.

    Args:
        spec: the stage's row in the table.
        what: added to the stage's title in the name of the task run.
        batches: which jobs make one task; by default several shots, or the clip, as the stage's unit is.
    """

    def cache_key(_: Any, parameters: dict[str, Any]) -> str:
        batch = Batch(jobs=parameters["jobs"])
        digest = digest_of(spec.name, [(job.plan[spec].ref.digest, job.frames) for job in batch.jobs])
        # A result names its workspace: one that was moved or copied must not lead back to where it was
        return f"{spec.name}-{digest}-{digest_of(batch.jobs[0].plan[spec].ref.workspace)[:8]}"

    def run_name(*, parameters: dict[str, Any]) -> str:
        batch = Batch(jobs=parameters["jobs"])
        first, last = batch.jobs[0].frames, batch.jobs[-1].frames
        frames = "" if first is None or last is None else f", frames {first[0]} to {last[1]}"
        return spec.title(batch.outline) + frames + what

    def make(function: Callable[[Job], object]) -> StageTask:
        def compute(jobs: tuple[Job, ...]) -> list[str]:
            send_logs_to_run()
            return cancellable_task(lambda: [_compute(function, job, spec) for job in jobs])

        compute.__doc__ = function.__doc__
        made = task(
            name=spec.name.replace("_", " "),
            cache_key_fn=cache_key,
            task_run_name=cast("Any", run_name),  # called with the parameters, by their name
            persist_result=True,
            result_serializer="json",
            cache_result_in_memory=False,
            **cast("Any", RETRIES),
        )
        return StageTask(spec, made(compute), batches or (shot_batches if spec.unit == "shot" else clip_batches))

    return make


def _compute(function: Callable[[Job], object], job: Job, spec: StageSpec[StageSettings]) -> str:
    """Compute a job unless it is complete; return the path of what it writes."""
    raise_if_stopped()
    name = job.name(spec)
    workspace, limit = Workspace.open(job.plan[spec].ref.workspace), spec.time_limit(job.plan)
    # The time limit is ours: that of Prefect cannot end a thread either, and warns of each. Waiting is free
    with claim(workspace, name, check=raise_if_stopped), time_limit(limit):
        if not _is_stored(job, spec):  # another run may have computed it while this one waited
            with named_full_disk(job.plan, spec):
                function(job)
            JobTable(workspace).append([_job_record(name, spec)])
            return_freed_memory()
    return name


def _job_record(name: str, spec: StageSpec[StageSettings]) -> JobRecord:
    return JobRecord(
        job=name,
        stage=spec.name,
        attempt=task_run.run_count or 1,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        run=str(flow_run.id or ""),
    )


def _is_stored(job: Job, spec: StageSpec[StageSettings]) -> bool:
    artifact = open_artifact(job.plan[spec].ref)
    return artifact.is_complete() or (job.part is not None and artifact.has_part(job.part))


@contextmanager
def measured() -> Iterator[Callable[[], dict[str, float]]]:
    """Yield a function that returns the seconds since the context began and the process's peak memory in MiB."""
    start = time.perf_counter()

    def measure() -> dict[str, float]:
        return {"seconds": round(time.perf_counter() - start, 2), "peak_memory_mib": round(peak_memory(), 1)}

    yield measure
