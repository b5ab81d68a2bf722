"""Stages on the workers of a Dask cluster: the device is theirs, and the flow's process hears of their progress."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from flows import gpu_workers
from flows.edit_video import edit_video
from flows.gpu_workers import cuda_where_stages_run
from flows.placement import placed
from flows.planning import plan_edit_request
from flows.settings import WaveSettings
from storage.workspace import open_artifact
from tasks.errors import TaskInputError
from tasks.planning.request import EditRequest, edit_request
from tasks.planning.stages import ASSESS, STAGES
from tasks.progress import listening
from tasks.services.dask_cluster import cluster
from tests._clips import save_clip
from tests._reporting_run import started, wait_for

edit_video_module = import_module("flows.edit_video")


def choices(**settings: Any) -> WaveSettings:
    return WaveSettings(dask_address="tcp://127.0.0.1:1", **settings)


@pytest.mark.parametrize("cuda", [True, False])
def test_a_plan_follows_the_workers_with_a_gpu_and_not_the_host_of_the_flow(
    cuda: bool, clip: Path, sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: not cuda)
    monkeypatch.setattr(gpu_workers, "_cuda_of_gpu_workers", lambda _: {"a": cuda, "b": cuda})
    request = edit_request(video=str(clip), prompt="a blue star", model=str(sd15))
    execution = plan_edit_request(request, choices(workspace=str(tmp_path))).execution
    expected = ("float16", "torch") if cuda else ("float32", "numba")
    assert (execution.device, execution.dtype, execution.propagation) == ("auto", *expected)


@pytest.mark.parametrize(
    ("settings", "cuda"),
    [
        ({"device": "cpu"}, False),
        ({"device": "cuda"}, True),
        ({"dtype": "float32", "propagation_device": "cpu"}, False),
        ({"dtype": "float32", "propagation_device": "cuda"}, True),
        ({"device": "cpu", "propagation_device": "cuda"}, True),
    ],
)
def test_the_cluster_is_not_asked_where_the_settings_say_what_is_computed(
    settings: dict[str, str], cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_workers, "_cuda_of_gpu_workers", lambda _: pytest.fail("asked"))
    assert cuda_where_stages_run(choices(**settings)) is cuda


@pytest.mark.parametrize(
    ("workers", "words"), [({}, "No worker .* resource GPU"), ({"a": True, "b": False}, "some have .* and b none")]
)
def test_a_cluster_that_cannot_run_the_plan_is_refused_in_one_sentence(
    workers: dict[str, bool], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_workers, "_cuda_of_gpu_workers", lambda _: workers)
    with pytest.raises(TaskInputError, match=words):
        cuda_where_stages_run(choices())


def test_only_the_workers_with_a_gpu_are_asked_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    options: dict[str, Any] = {"processes": False, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(n_workers=0, **options) as local:
        address = local.scheduler_address
        assert gpu_workers._cuda_of_gpu_workers(address) == {}
        local.worker_spec.update(
            {
                name: {**local.new_spec, "options": {**local.new_spec["options"], "resources": {name.upper(): 1}}}
                for name in ("cpu", "gpu")
            }
        )
        local.sync(local._correct_state)
        local.wait_for_workers(2)
        assert list(gpu_workers._cuda_of_gpu_workers(address).values()) == [True]


def test_of_the_tasks_that_wait_those_with_the_highest_priority_run_first(tmp_path: Path) -> None:
    free = tmp_path / "free"
    options: dict[str, Any] = {"processes": False, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(n_workers=1, resources={"CPU": 1}, **options) as local, Client(local) as client:
        settings = WaveSettings(dask_address=local.scheduler_address)
        waiting = {}
        with placed(settings, "cpu", priority=9):
            first = client.submit(lambda: [time.sleep(0.01) for _ in iter(free.exists, True)], pure=False)
        for priority in (0, 7, 3):
            with placed(settings, "cpu", priority=priority):
                waiting[priority] = client.submit(time.monotonic, pure=False)
        end = time.monotonic() + 60
        while len(local.workers[0].state.tasks) < 4:
            assert time.monotonic() < end, "the tasks did not reach the worker"
            time.sleep(0.01)
        free.touch()
        client.gather(first)
        ended = client.gather(waiting)
    assert sorted(ended, key=ended.get) == [7, 3, 0]  # type: ignore[arg-type]


def test_each_stage_has_priority_over_the_earlier_ones(
    server: str, request_: EditRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    original = edit_video_module.placed

    def note(*args: Any, priority: int) -> Any:
        given.append(priority)
        return original(*args, priority=priority)

    monkeypatch.setattr(edit_video_module, "placed", note)
    edit_video(request_, WaveSettings(workspace=str(tmp_path / "workspace"), max_tasks=2))
    previews = given.pop(5)
    assert given == sorted(given)
    assert given[-1] == previews > max(given[:-1])
    assert len({*given}) == len(STAGES) + 1


def test_a_cluster_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_workers, "_SECONDS_TO_CONNECT", 1)
    with pytest.raises(TaskInputError, match=r"cluster at tcp://127\.0\.0\.1:1 does not answer"):
        cuda_where_stages_run(choices())


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes") / "gpu"


@pytest.fixture(scope="module")
def address(server: str, notes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    workers = [("CPU=1", []), ("GPU=1", ["--preload", "tests._fake_gpu"])]
    environment = {"PREFECT_API_URL": server, "FAKE_GPU_LOG": str(notes)}
    with cluster(tmp_path_factory.mktemp("cluster"), workers, environment=environment) as address:
        yield address


@pytest.fixture(scope="module")
def request_(clip: Path, sd15: Path) -> EditRequest:
    return edit_request(video=str(clip), prompt="a blue star", model=str(sd15), steps=2, keyframe_interval=3)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_gpu_stages_run_on_the_gpu_of_their_worker_and_all_progress_is_heard(
    address: str, notes: Path, request_: EditRequest, tmp_path: Path
) -> None:
    settings = WaveSettings(workspace=str(tmp_path / "workspace"), dask_address=address)
    heard: list[tuple[str, str, int, int]] = []
    with listening(lambda *event: heard.append(event)):
        edit_video(request_, settings)
    plan = plan_edit_request(request_, settings)
    assert open_artifact(plan[ASSESS].ref).is_complete()
    assert (plan.execution.dtype, plan.execution.propagation) == ("float16", "torch")
    noted = set(notes.read_text().splitlines())
    assert noted == {"invert cuda float16", "edit cuda float16", "propagate cuda"}
    for spec in STAGES:
        parts = {(part, total) for stage, part, _, total in heard if stage == spec.name}
        assert parts, spec.name
        for part, total in parts:
            reported = [done for stage, name, done, _ in heard if (stage, name) == (spec.name, part)]
            assert reported[0] == 0
            assert reported[-1] == total


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_stages_on_workers_end_when_the_run_is_cancelled(server: str, address: str, tmp_path: Path) -> None:
    clip, workspace = save_clip(tmp_path / "clip.mp4", frames=9), tmp_path / "workspace"
    with started(server, "edit", clip, workspace, WAVE_DASK_ADDRESS=address, STEPS="900") as process:
        # A stage that lasts far longer than it takes a worker to look
        wait_for(process, "invert")
        process.terminate()
        process.communicate(timeout=300)
    end = time.monotonic() + 60
    while any((workspace / "claims").rglob("*.lock")):
        assert time.monotonic() < end, "the stage goes on"
        time.sleep(0.1)
    assert list(workspace.glob("clips/*/keyframe_flow/*/complete.json"))
    assert not list(workspace.glob("clips/*/inversion/*/complete.json"))
