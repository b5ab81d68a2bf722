"""The whole flow through a Prefect server, on a tiny checkpoint of Stable Diffusion 1.5's structure."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH
from prefect.task_runners import ThreadPoolTaskRunner

from flows import placement
from flows.edit_video import edit_video
from flows.planning import plan_edit_request
from flows.settings import WaveSettings
from storage.inventory import collect, plan_collection, take_inventory
from storage.tables import read_runs
from storage.video import probe, write_video
from storage.workspace import Workspace, open_artifact
from tasks.artifacts import EDITED, REPORT
from tasks.errors import TaskInputError
from tasks.planning.plan import EditPlan
from tasks.planning.prepare import is_complete
from tasks.planning.request import EditRequest, edit_request
from tasks.planning.stages import ASSESS, DECODE, ENCODE, INVERT, STAGES, StageSpec
from tests._stages import contents, run_stages
from wave_ops.errors import WaveOpsError
from wave_ops.scenes.rendering import cut
from wave_ops.scenes.specs import random_scene

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def request_(clip: Path, sd15: Path) -> EditRequest:
    return edit_request(video=str(clip), prompt="a blue star", model=str(sd15), steps=2, keyframe_interval=3)


@pytest.fixture(scope="module")
def finished(server: str, request_: EditRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the flow once; return its workspace, for reading and copying, and its run's ID."""
    workspace = tmp_path_factory.mktemp("finished") / "workspace"
    run = flow_run_of(server, request_, WaveSettings(workspace=str(workspace), max_tasks=2))
    return workspace, run


@pytest.fixture
def settings(finished: tuple[Path, str], tmp_path: Path) -> WaveSettings:
    """Settings of a copy of the finished workspace, so that no test sees what another has written."""
    copy = shutil.copytree(finished[0], tmp_path / "workspace")
    return WaveSettings(workspace=str(copy), max_tasks=2)


@pytest.fixture
def plan(request_: EditRequest, settings: WaveSettings) -> EditPlan:
    return plan_edit_request(request_, settings)


def flow_run_of(server: str, request: EditRequest, settings: WaveSettings) -> str:
    """Run the flow and return the ID of its run."""
    state = edit_video(request, settings, return_state=True)
    state.result()
    return str(state.state_details.flow_run_id)


def ask(server: str, what: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.post(f"{server}/{what}/filter", json=query, timeout=30).json()
    return found


def tasks_of(server: str, run: str) -> list[dict[str, Any]]:
    """Return the task runs of a flow run, once the server has heard of the last of them."""
    for _ in range(100):
        tasks = ask(server, "task_runs", flow_runs={"id": {"any_": [run]}})
        completed = {task["name"] for task in tasks if task["state_type"] == "COMPLETED"}
        if len(completed) == len(tasks) and "Record the run" in completed:
            break
        time.sleep(0.2)
    return tasks


def states(server: str, run: str) -> Counter[str]:
    return Counter(task["state_name"] for task in tasks_of(server, run))


def test_the_flow_makes_the_same_files_as_its_stages(
    finished: tuple[Path, str], request_: EditRequest, settings: WaveSettings, tmp_path: Path
) -> None:
    again = plan_edit_request(request_, settings.model_copy(update={"workspace": str(tmp_path / "stages")}))
    run_stages(again)
    assert contents(tmp_path / "stages") == contents(finished[0])
    with open_artifact(again[ENCODE].ref).local_copy(EDITED) as video:
        assert probe(video).frame_count == again.clip.frame_count


def test_a_person_understands_what_the_server_shows(server: str, finished: tuple[Path, str], plan: EditPlan) -> None:
    run = finished[1]
    assert states(server, run) == {"Completed": 11}
    (found,) = ask(server, "flow_runs", flow_runs={"id": {"any_": [run]}})
    assert found["name"] == "clip.mp4: a blue star"
    tags = {task["name"]: set(task["tags"]) for task in tasks_of(server, run)}
    assert tags["Invert 3 keyframes of clip.mp4"] == {"wave", "gpu"}
    assert tags["Propagate the edit over clip.mp4, frames 0 to 6"] == {"wave", "cpu"}
    shown = {item["key"]: item["data"] for item in ask(server, "artifacts", flow_runs={"id": {"any_": [run]}})}
    digest = plan[ASSESS].ref.digest
    for name in ("keyframes", "preview"):
        assert "data:image/jpeg;base64," in shown[f"edit-{name}-{digest}"]
    for name, file in (("video", EDITED), ("report", REPORT)):
        assert re.search(rf"\]\(file://\S+/{re.escape(file)}\)$", shown[f"edit-{name}-{digest}"])


def test_what_a_stage_logs_reaches_the_logs_of_its_task_run(
    server: str, finished: tuple[Path, str], request_: EditRequest
) -> None:
    tasks = {task["id"]: task["name"] for task in tasks_of(server, finished[1])}
    expected = {
        "Decode clip.mp4": "Decoded 7 frames, 64x48, shots: 1",
        "Edit 3 keyframes of clip.mp4": f"The networks of {request_.model} run on cpu in float32",
    }
    for _ in range(300):  # logs are sent in batches
        logs = ask(server, "logs", logs={"flow_run_id": {"any_": [finished[1]]}})
        found = {tasks[line["task_run_id"]]: line["message"] for line in logs if line["name"].startswith("tasks.")}
        if expected.keys() <= found.keys():
            break
        time.sleep(0.2)
    assert {name: found[name] for name in expected} == expected


def test_a_second_prompt_takes_decoding_flow_and_inversion_from_the_cache(
    server: str, request_: EditRequest, plan: EditPlan, settings: WaveSettings
) -> None:
    remember_results(plan, settings)
    run = flow_run_of(server, request_.model_copy(update={"prompt": "a green ring"}), settings)
    assert states(server, run)["Cached"] == 4
    assert len(read_runs(Workspace.open(settings.workspace))) == 3


def lose(plan: EditPlan, spec: StageSpec[Any]) -> None:
    open_artifact(plan[spec].ref).discard()


def remember_results(plan: EditPlan, settings: WaveSettings) -> None:
    """Let Prefect have results of all stages for this copy of a workspace: they name it."""
    lose(plan, ENCODE)
    edit_video(plan.request, settings)


def test_results_of_prefect_are_in_a_workspace_at_a_url_as_well(
    server: str, request_: EditRequest, tmp_path: Path
) -> None:
    remote = WaveSettings(workspace=f"memory://{tmp_path}")
    edit_video(request_, remote)
    found = Workspace.open(remote.workspace).files.sizes("results")
    assert len(found) == len(STAGES) + 1  # two tasks of the propagation
    home = PREFECT_LOCAL_STORAGE_PATH.value()
    assert not set(found) & ({path.name for path in home.iterdir()} if home.exists() else set())
    lose(plan_edit_request(request_, remote), ENCODE)
    run = flow_run_of(server, request_, remote)
    assert states(server, run) == {"Cached": len(STAGES), "Completed": 2}  # encode, record


def test_prefects_cache_does_not_stand_in_for_what_the_workspace_has_lost(
    server: str, plan: EditPlan, request_: EditRequest, settings: WaveSettings
) -> None:
    remember_results(plan, settings)
    before = contents(Path(settings.workspace))
    lose(plan, INVERT)
    lose(plan, ENCODE)
    run = flow_run_of(server, request_, settings)
    assert contents(Path(settings.workspace)) == before
    assert states(server, run) == {"Completed": 3, "Cached": 7}  # invert, encode, record


def test_nothing_is_computed_again_whose_result_is_kept_though_the_rest_was_freed(
    server: str, request_: EditRequest, settings: WaveSettings, tmp_path: Path
) -> None:
    scene = cut(*(random_scene(seed, size=(48, 64), frame_count=4) for seed in (3, 8)))
    path = tmp_path / "cut.mp4"
    write_video(path, scene.frames, timestamps=range(8), time_base=Fraction(1, 12))
    request = request_.model_copy(update={"video": str(path), "steps": 1})
    edit_video(request, settings)
    workspace = Workspace.open(settings.workspace)
    freed = plan_collection(take_inventory(workspace), keep="results", older_than=timedelta(0))
    collect(workspace, freed)
    assert {"source", "frames", "inversion"} <= {choice.artifact.kind for choice in freed.removed}
    plan = plan_edit_request(request, settings)
    assert plan.clip.cuts == (4,)
    assert states(server, flow_run_of(server, request, settings)) == {"Completed": 1}
    assert not is_complete(plan, DECODE)


def test_a_workspace_that_was_moved_is_used_where_it_is_now(
    server: str, request_: EditRequest, settings: WaveSettings, tmp_path: Path
) -> None:
    edit_video(request_, settings)
    moved = Path(settings.workspace).rename(tmp_path / "moved")
    edit_video(request_, settings.model_copy(update={"workspace": str(moved)}))
    assert not Path(settings.workspace).exists()


def test_the_error_of_the_stage_that_failed_is_raised(
    server: str, request_: EditRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise WaveOpsError("no latents today")

    monkeypatch.setattr("tasks.invert.invert", fail)
    with pytest.raises(WaveOpsError, match="no latents today"):
        edit_video(request_.model_copy(update={"seed": 9}), settings)


def test_a_run_without_a_preview_goes_on(
    server: str, request_: EditRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError("the server is away")

    monkeypatch.setattr("tasks.record.contact_sheet", fail)
    run = flow_run_of(server, request_.model_copy(update={"prompt": "a white star"}), settings)
    assert "Preview the edited keyframes" in {task["name"] for task in tasks_of(server, run)}


def test_a_stage_that_runs_out_of_time_is_ended_and_tried_again(
    server: str, request_: EditRequest, settings: WaveSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = iter([0.0])
    monkeypatch.setattr(StageSpec, "time_limit", lambda *_: next(limits, 600.0))
    run = flow_run_of(server, request_, settings.model_copy(update={"workspace": str(tmp_path / "late")}))
    runs = {task["name"]: task["run_count"] for task in tasks_of(server, run)}
    assert runs.pop("Decode clip.mp4") == 2
    assert set(runs.values()) == {1}


def test_the_runner_follows_the_settings_of_the_run(
    server: str, request_: EditRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAVE_MAX_TASKS", "3")
    made: list[WaveSettings] = []
    original = placement.task_runner
    monkeypatch.setattr(placement, "task_runner", lambda chosen: made.append(chosen) or original(chosen))
    edit_video(request_, settings.model_copy(update={"max_tasks": 5}))
    edit_video(request_.model_copy(), WaveSettings(workspace=settings.workspace))
    assert [chosen.max_tasks for chosen in made] == [5, 3]


def test_threads_are_the_default_runner_and_a_scheduler_asks_for_dask() -> None:
    assert isinstance(placement.task_runner(WaveSettings()), ThreadPoolTaskRunner)
    assert type(placement.task_runner(WaveSettings(dask_address="tcp://nowhere:1"))).__name__ == "DaskTaskRunner"


def test_a_wrong_variable_does_not_break_an_import() -> None:
    environment = os.environ | {"WAVE_DEVICE": "tpu", "WAVE_NONSENSE": "1"}
    imports = "import flows.cli, flows.edit_video, flows.evaluate, flows.train_embedded"
    subprocess.run([sys.executable, "-c", imports], env=environment, check=True, cwd=ROOT)


def test_a_wrong_variable_is_one_sentence_when_a_run_starts(
    server: str, request_: EditRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAVE_DEVICE", "tpu")
    with pytest.raises(TaskInputError, match="WAVE_DEVICE cannot be 'tpu'"):
        edit_video(request_)


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
    return os.environ | {"PREFECT_API_URL": server, "PYTHONPATH": str(ROOT)}
