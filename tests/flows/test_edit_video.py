"""The whole flow through a Prefect server, on a tiny checkpoint of Stable Diffusion 1.5's structure."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.task_runners import ThreadPoolTaskRunner

from flows.edit_video import edit_video
from flows.placement import task_runner
from flows.planning import plan_edit_request
from flows.settings import WaveSettings
from storage.tables import read_runs
from storage.video import probe
from storage.workspace import Workspace, open_artifact
from tasks.artifacts import EDITED
from tasks.planning.plan import EditPlan
from tasks.planning.request import EditRequest, edit_request
from tasks.planning.stages import ENCODE, INVERT
from tests._stages import contents, run_stages
from wave_ops.errors import WaveOpsError


@pytest.fixture(scope="module")
def request_(clip: Path, sd15: Path) -> EditRequest:
    return edit_request(video=str(clip), prompt="a blue star", model=str(sd15), steps=2, keyframe_interval=3)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> WaveSettings:
    return WaveSettings(workspace=str(tmp_path_factory.mktemp("workspace")), max_tasks=2)


@pytest.fixture(scope="module")
def plan(server: str, request_: EditRequest, settings: WaveSettings) -> EditPlan:
    edit_video(request_, settings)
    return plan_edit_request(request_, settings)


def ask(server: str, what: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.post(f"{server}/{what}/filter", json=query, timeout=30).json()
    return found


def states(server: str) -> Counter[str]:
    """Count the states of the last completed flow run's tasks, once the server has heard of the last of them."""
    run = ask(server, "flow_runs", sort="START_TIME_DESC", limit=1)[0]
    for _ in range(100):
        tasks = ask(server, "task_runs", flow_runs={"id": {"any_": [run["id"]]}})
        finished = {task["name"] for task in tasks if task["state_type"] == "COMPLETED"}
        if len(finished) == len(tasks) and "Record the run" in finished:
            break
        time.sleep(0.2)
    return Counter(task["state_name"] for task in tasks)


def test_the_flow_makes_the_same_files_as_its_stages(
    plan: EditPlan, request_: EditRequest, settings: WaveSettings, tmp_path: Path
) -> None:
    again = plan_edit_request(request_, settings.model_copy(update={"workspace": str(tmp_path)}))
    run_stages(again)
    assert contents(tmp_path) == contents(Path(settings.workspace))
    with open_artifact(plan[ENCODE].ref).local_copy(EDITED) as video:
        assert probe(video).frame_count == plan.clip.frame_count


def test_a_person_understands_what_the_server_shows(server: str, plan: EditPlan) -> None:
    assert states(server) == {"Completed": 9 + len(plan.intervals)}
    run = ask(server, "flow_runs", sort="START_TIME_DESC", limit=1)[0]
    assert run["name"] == "clip.mp4: a blue star"
    tags = {task["name"]: set(task["tags"]) for task in ask(server, "task_runs")}
    assert tags["Invert 3 keyframes of clip.mp4"] == {"wave", "gpu"}
    assert tags["Propagate the edit over clip.mp4, frames 0 to 3"] == {"wave", "cpu"}
    preview = next(item for item in ask(server, "artifacts") if item["key"] == "edit-preview")
    assert "data:image/jpeg;base64," in preview["data"]


def test_a_second_prompt_takes_decoding_flow_and_inversion_from_the_cache(
    server: str, plan: EditPlan, request_: EditRequest, settings: WaveSettings
) -> None:
    edit_video(request_.model_copy(update={"prompt": "a green ring"}), settings)
    assert states(server)["Cached"] == 4
    assert len(read_runs(Workspace.open(settings.workspace))) == 2


def test_prefects_cache_does_not_stand_in_for_what_the_workspace_has_lost(
    server: str, plan: EditPlan, request_: EditRequest, settings: WaveSettings
) -> None:
    before = contents(Path(settings.workspace))
    shutil.rmtree(Path(settings.workspace) / plan[INVERT].ref.path)
    shutil.rmtree(Path(settings.workspace) / plan[ENCODE].ref.path)
    edit_video(request_, settings)
    assert contents(Path(settings.workspace)) == before
    assert states(server) == {"Completed": 3, "Cached": 6 + len(plan.intervals)}  # anew: invert, encode, record


def test_a_workspace_that_was_moved_is_used_where_it_is_now(
    server: str, plan: EditPlan, request_: EditRequest, settings: WaveSettings, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(settings.workspace, tmp_path / "moved"))
    away = Path(settings.workspace).rename(tmp_path / "away")
    try:
        edit_video(request_, settings.model_copy(update={"workspace": str(moved)}))
        assert not Path(settings.workspace).exists()
    finally:
        away.rename(settings.workspace)


def test_the_error_of_the_stage_that_failed_is_raised(
    server: str, plan: EditPlan, request_: EditRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise WaveOpsError("no latents today")

    monkeypatch.setattr("tasks.invert.invert", fail)
    with pytest.raises(WaveOpsError, match="no latents today"):
        edit_video(request_.model_copy(update={"seed": 9}), settings)


def test_threads_are_the_default_runner(settings: WaveSettings) -> None:
    assert isinstance(task_runner(settings), ThreadPoolTaskRunner)


@pytest.fixture(scope="module")
def options(sd15: Path) -> list[str]:
    return ["--prompt", "a star", "--model", str(sd15), "--steps", "20", "--keyframe-interval", "2"]


@pytest.fixture(scope="module")
def undisturbed(server: str, clip: Path, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(_command(clip, options, workspace), env=_environment(server), check=True)
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "chunk"), [("invert", "latents/c/5"), ("edit", "latents/c/5"), ("propagate", "frames/c/1")]
)
def test_a_command_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    server: str, clip: Path, options: list[str], undisturbed: Path, tmp_path: Path, stage: str, chunk: str
) -> None:
    """Kill `wave edit` as soon as the stage has stored something, and run it again."""
    (place,) = [path.parent for path in undisturbed.glob(f"clips/*/{_FOLDERS[stage]}/complete.json")]
    begun = tmp_path / place.relative_to(undisturbed)
    first = subprocess.Popen(_command(clip, options, tmp_path), env=_environment(server))
    while not (begun / chunk).exists():
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (begun / "complete.json").exists()
    subprocess.run(_command(clip, options, tmp_path), env=_environment(server), check=True)
    assert contents(tmp_path) == contents(undisturbed)


_FOLDERS = {"invert": "inversion/*", "edit": "keyframes/*", "propagate": "edits/*/frames"}


def _command(clip: Path, options: list[str], workspace: Path) -> list[str]:
    start = "from flows.cli import main; main()"
    return [sys.executable, "-c", start, "edit", str(clip), *options, "--workspace", str(workspace)]


def _environment(server: str) -> dict[str, str]:
    return os.environ | {"PREFECT_API_URL": server, "PYTHONPATH": str(Path(__file__).parents[2])}
