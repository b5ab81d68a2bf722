"""Runs that are cancelled in every way there is: they end at once, and the next one completes what they began."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from storage.status_table import StatusTable
from storage.workspace import Workspace
from tests._clips import save_clip
from tests._prefect import free_port, server_environment
from tests._prefect import wait_for as wait_until
from tests._reporting_run import started, wait_for
from tests._stages import contents

SECONDS = 5.0
IDLE = 0.3
"""Seconds that `slowness` takes on an idle machine."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that contains one clip."""
    folder = tmp_path_factory.mktemp("clips")
    save_clip(folder / "clip.mp4", frames=9)
    return folder


@pytest.fixture(scope="module")
def quiet(server: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    workspace = tmp_path_factory.mktemp("quiet")
    with started(server, "edit", folder / "clip.mp4", workspace) as run:
        run.communicate()
    assert run.returncode == 0
    return contents(workspace)


def wait_until_ended(process: subprocess.Popen[str]) -> None:
    """Wait until the flow has ended, or the process; the interpreter's own end takes seconds on a busy machine."""
    assert process.stdout is not None
    while (line := process.stdout.readline()) and line != "ended\n":
        pass


def slowness() -> float:
    """Return how many times slower than an idle one this machine is at present."""
    start = time.perf_counter()
    sum(range(10_000_000))
    return max(1.0, (time.perf_counter() - start) / IDLE)


def state_of(server: str, run: str) -> str:
    """Return the type of a flow run's state, once it has ended."""
    for _ in range(300):
        state: str = httpx.get(f"{server}/flow_runs/{run}", timeout=60).json()["state"]["type"]
        if state in {"CANCELLED", "CRASHED", "FAILED", "COMPLETED"}:
            break
        time.sleep(0.1)
    return state


def stop(server: str, process: subprocess.Popen[str], run: str, how: str) -> None:
    if how == "server":
        state = {"state": {"type": "CANCELLING"}, "force": True}
        httpx.post(f"{server}/flow_runs/{run}/set_state", json=state, timeout=60).raise_for_status()
    else:
        process.send_signal(getattr(signal, how))


def stop_in_time(server: str, process: subprocess.Popen[str], run: str, how: str) -> None:
    """Stop a run, and check that it ends within the seconds allowed, and with an error."""
    before, start = slowness(), time.monotonic()
    stop(server, process, run, how)
    wait_until_ended(process)
    seconds = time.monotonic() - start
    process.communicate(timeout=600)
    slow = max(before, slowness())
    print(f"{how}: {seconds:.1f} s, slowness {slow:.1f}")  # noqa: T201
    assert process.returncode != 0
    assert seconds < SECONDS * slow


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("what", "stops"),
    [
        ("edit", [("invert", "SIGTERM"), ("edit", "server"), ("propagate", "SIGINT")]),
        ("dataset", [("invert", "server"), ("edit", "SIGINT"), ("propagate", "SIGTERM")]),
    ],
)
def test_a_cancelled_run_ends_within_seconds_and_the_next_ones_complete_the_same_bytes(
    server: str, folder: Path, quiet: dict[str, str], tmp_path: Path, what: str, stops: list[tuple[str, str]]
) -> None:
    source = folder / "clip.mp4" if what == "edit" else folder
    for stage, how in stops:
        with started(server, what, source, tmp_path) as process:
            run = wait_for(process, stage)
            stop_in_time(server, process, run, how)
        # Without a worker that says why, a termination signal may as well be that of a machine that shuts down
        assert state_of(server, run) == ("CRASHED" if how == "SIGTERM" else "CANCELLED")
        if what == "dataset":
            table = StatusTable(Workspace.open(str(tmp_path)), folder.name)
            assert list(table.latest()["state"]) == ["cancelled"]
    with started(server, what, source, tmp_path) as process:
        process.communicate()
    assert process.returncode == 0
    assert contents(tmp_path) == quiet


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_cancelled_evaluation_ends_at_its_next_step(server: str, tmp_path: Path) -> None:
    with started(server, "evaluate", Path(), tmp_path) as process:
        run = wait_for(process, "any")
        time.sleep(20)  # imports and a model later, it is amid a clip
        stop_in_time(server, process, run, "server")
    assert state_of(server, run) == "CANCELLED"
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_a_worker_started_ends_when_it_is_cancelled_in_the_pages(tmp_path: Path) -> None:
    save_clip(tmp_path / "clip.mp4", frames=9)
    port = free_port()
    env = server_environment(tmp_path / "home", port)
    api = env.pop("PREFECT_API_URL")
    options = ("--port", str(port), "--workspace", str(tmp_path / "workspace"))
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "flows.cli", "serve", *options]
        served = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: b"started" in (tmp_path / "log").read_bytes(), seconds=400, what="the worker")
        deployment = httpx.get(f"{api}/deployments/name/edit-video/edit", timeout=60).json()["id"]
        request = {"video": str(tmp_path / "clip.mp4"), "prompt": "a blue star", "keyframe_interval": 4}
        run = start_deployment(api, deployment, request)
        latents = tmp_path / "workspace" / "clips"
        wait_until(lambda: any(latents.glob("*/inversion/*")), seconds=300, what="the inversion")
        before, start = slowness(), time.monotonic()
        httpx.post(f"{api}/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}}, timeout=60)
        ended = "Flow run was cancelled"  # the worker marks it some seconds later, after it has called the flow's hooks
        wait_until(lambda: ended in (tmp_path / "log").read_text(), seconds=120, what="the end of the stage")
        seconds = time.monotonic() - start
        state = state_of(api, run)
        again = start_deployment(api, deployment, request)
        wait_until(lambda: state_of(api, again) == "COMPLETED", seconds=300, what="the second run")
    finally:
        served.send_signal(signal.SIGINT)
        served.wait(timeout=200)
    print(f"worker: {seconds:.1f} s, slowness {before:.1f}")  # noqa: T201
    assert state == "CANCELLED"
    assert seconds < SECONDS * max(before, slowness())
    assert "failed to retrieve flow" not in (tmp_path / "log").read_text()


def start_deployment(api: str, deployment: str, request: dict[str, object]) -> str:
    body = {"parameters": {"request": request}}
    url = f"{api}/deployments/{deployment}/create_flow_run"
    run: str = httpx.post(url, json=body, timeout=60).raise_for_status().json()["id"]
    return run
