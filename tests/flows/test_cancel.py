"""Runs that are cancelled in every way there is: they end at once, and the next one completes what they began."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from storage.status_table import StatusTable
from storage.workspace import Workspace
from tests._clips import save_clip
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
            run, before = wait_for(process, stage), slowness()
            start = time.monotonic()
            stop(server, process, run, how)
            wait_until_ended(process)
            seconds = time.monotonic() - start
            process.communicate(timeout=600)
        slow = max(before, slowness())
        print(f"{what} {stage} {how}: {seconds:.1f} s, slowness {slow:.1f}")  # noqa: T201
        assert process.returncode != 0
        assert seconds < SECONDS * slow
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
        before, start = slowness(), time.monotonic()
        stop(server, process, run, "server")
        wait_until_ended(process)
        seconds = time.monotonic() - start
        process.communicate(timeout=600)
    slow = max(before, slowness())
    print(f"evaluate: {seconds:.1f} s, slowness {slow:.1f}")  # noqa: T201
    assert process.returncode != 0
    assert seconds < SECONDS * slow
    assert state_of(server, run) == "CANCELLED"
    assert not (tmp_path / "results").exists()
