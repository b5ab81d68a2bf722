from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import torch
from prefect.states import Failed

from storage.errors import WorkspaceError
from tasks.decode import decode_clip
from tasks.errors import TaskInputError
from tasks.planning.batches import Job, stretch_batches
from tasks.planning.stages import DECODE, PROPAGATE
from tasks.progress import StageProgress, listening, stage_progress
from tasks.propagate import finish_propagation, propagate_frames
from tasks.stage import RETRIES, is_transient, measured, stage_task
from tests._plans import planned
from wave_ops.errors import WaveOpsError

LOST = ConnectionResetError("gone")


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (LOST, True),
        (TimeoutError(), True),
        (OSError(errno.ESTALE, "stale handle"), True),
        (httpx.ReadTimeout("slow"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (OSError(errno.ENOSPC, "disk full"), False),
        (FileNotFoundError(), False),
        (TaskInputError("wrong"), False),
        (WaveOpsError("wrong"), False),
        (WorkspaceError("wrong"), False),
        (MemoryError(), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_errors_that_pass_by_themselves_are_retried(error: BaseException, transient: bool) -> None:
    assert is_transient(error) is transient
    condition: Any = decode_clip.task.retry_condition_fn
    assert condition(decode_clip.task, None, Failed(data=error)) is transient


def ref(digest: str, workspace: str = "/w") -> Any:
    return SimpleNamespace(digest=digest, workspace=workspace)


def fake_plan(digest: str, workspace: str = "/w") -> Any:
    stage = SimpleNamespace(name="propagate", ref=ref(digest, workspace), title="Propagate")
    return {PROPAGATE: stage}


def test_cache_keys_differ_by_digest_interval_and_workspace() -> None:
    def key(task: Any, plan: Any, **inputs: Any) -> str:
        made: str = task.task.cache_key_fn(None, {"jobs": (Job(plan=plan, **inputs),)})
        return made

    keys = [
        key(finish_propagation, fake_plan("a")),
        key(finish_propagation, fake_plan("b")),
        key(finish_propagation, fake_plan("a", workspace="/other")),
        key(propagate_frames, fake_plan("a"), frames=(0, 4)),
        key(propagate_frames, fake_plan("a"), frames=(4, 8)),
    ]
    assert len(set(keys)) == len(keys)
    assert all(os.sep not in made for made in keys)


@pytest.mark.parametrize(
    ("cuts", "chosen", "name"),
    [
        ((), slice(None), "Propagate the edit over clip, frames 0 to 9"),
        ((4, 7), slice(1, 2), "Propagate the edit over clip, shot 2 of 3, frames 4 to 6"),
        ((4, 7), slice(0, 2), "Propagate the edit over clip, shots 1 to 2 of 3, frames 0 to 6"),
        ((4, 7), slice(None), "Propagate the edit over clip, frames 0 to 9"),
    ],
)
def test_task_runs_have_names_for_people(cuts: tuple[int, ...], chosen: slice, name: str) -> None:
    plan = planned(frame_count=10, cuts=cuts)
    jobs = tuple(job for batch in stretch_batches(plan) for job in batch.jobs)[chosen]
    run_name: Any = propagate_frames.task.task_run_name
    assert run_name(parameters={"jobs": jobs}) == name


@pytest.mark.parametrize(("backend", "resource"), [("numba", "cpu"), ("torch", "gpu")])
def test_frames_are_propagated_where_the_backend_runs(backend: str, resource: str) -> None:
    plan: Any = SimpleNamespace(execution=SimpleNamespace(propagation=backend))
    assert propagate_frames.runs_on(plan) == resource
    assert decode_clip.runs_on(plan) == "cpu"


def test_a_stages_task_keeps_a_json_result() -> None:
    task = stage_task(DECODE)(lambda plan: plan).task
    assert (task.persist_result, task.result_serializer, task.retries) == (True, "json", 4)


def test_retries_do_not_all_come_back_at_once() -> None:
    tasks = [decode_clip.task, propagate_frames.task, finish_propagation.task]
    assert all(task.retry_jitter_factor and task.retry_jitter_factor > 0 for task in tasks)


def test_a_cancelled_run_waits_at_most_five_seconds_for_a_retry() -> None:
    delays: Any = RETRIES["retry_delay_seconds"]
    longest = max(delays) * (1 + cast("float", RETRIES["retry_jitter_factor"]))
    assert longest <= 5


def test_measured_counts_seconds_and_memory() -> None:
    with measured() as figures:
        found = figures()
    assert found["seconds"] >= 0
    assert found["peak_memory_mib"] > 1


def test_a_listener_is_called_from_where_a_stage_resumes_to_its_end() -> None:
    heard: list[tuple[str, str, int, int]] = []
    stage: Any = fake_plan("a")[PROPAGATE]
    with listening(lambda *event: heard.append(event)), stage_progress(stage, total=3, done=1, part="x") as progress:
        progress.report(2)
    StageProgress(stage=stage, total=3).report(1)
    assert heard == [("propagate", "a x", done, 3) for done in (1, 2, 3)]


def test_a_stage_that_fails_does_not_report_its_end() -> None:
    heard: list[int] = []
    stage: Any = fake_plan("a")[PROPAGATE]
    with (
        listening(lambda _stage, _part, done, _total: heard.append(done)),
        pytest.raises(ValueError, match="broken"),
        stage_progress(stage, total=3),
    ):
        raise ValueError("broken")
    assert heard == [0]
