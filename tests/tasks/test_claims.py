"""Stages that several runs want at the same time: computed once, whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.job_table import JobTable
from storage.workspace import Workspace, open_artifact
from tasks.planning.stages import PROPAGATE
from tests._claimed_stage import PlanOfOneStage, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["folder", "memory"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "workspace") if request.param == "folder" else f"memory://{tmp_path}"


def wait_until(condition: Callable[[], bool], *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def another() -> Iterator[subprocess.Popen[str]]:
    """Start a process that runs the stage for each line that is written to it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests._claimed_stage"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    yield process
    process.kill()
    process.communicate()


def test_a_stage_that_another_process_computes_is_awaited_and_computed_here_only_if_that_dies(
    another: subprocess.Popen[str], tmp_path: Path
) -> None:
    workspace, logs = str(tmp_path / "workspace"), [tmp_path / "finished", tmp_path / "killed"]
    assert another.stdin is not None
    another.stdin.writelines(
        f"{workspace} {log.name} {log} {seconds}\n" for log, seconds in zip(logs, (2, 600), strict=True)
    )
    wait_until(logs[0].exists)
    run(PlanOfOneStage(workspace=workspace, digest="finished", log=logs[0]))
    assert logs[0].read_text().split() == ["begin", "end"]

    wait_until(logs[1].exists)
    with ThreadPoolExecutor(1) as pool:
        plan = PlanOfOneStage(workspace=workspace, digest="killed", log=logs[1])
        waiting = pool.submit(run, plan)
        time.sleep(1)
        assert logs[1].read_text().split() == ["begin"]
        another.kill()
        waiting.result(timeout=5)
    assert logs[1].read_text().split() == ["begin", "begin", "end"]
    assert open_artifact(plan[PROPAGATE].ref).is_complete()
    # Computed once, and by whom
    jobs = JobTable(Workspace.open(workspace)).read()
    assert list(jobs["job"]) == ["clips/c/finished/propagate", "clips/c/killed/propagate"]
    assert [worker.rpartition(":")[2] for worker in jobs["worker"]] == [str(another.pid), str(os.getpid())]


def test_threads_that_run_one_part_at_once_compute_it_once(workspace: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        plan = PlanOfOneStage(workspace=workspace, log=tmp_path / "log", seconds=0.3)
        runs = [pool.submit(run, plan, (0, 4)) for _ in range(4)]
        assert {tuple(each.result()) for each in runs} == {("clips/c/d/propagate/000000-000004",)}
    assert list(JobTable(Workspace.open(workspace)).read()["job"]) == ["clips/c/d/propagate/000000-000004"]
    assert (tmp_path / "log").read_text().split() == ["begin", "end"]


@pytest.mark.parametrize("what", ["part", "artifact"])
def test_different_parts_and_artifacts_do_not_wait_for_one_another(what: str, workspace: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ThreadPoolExecutor(3) as pool:
        for index in range(3):
            digest = "d" if what == "part" else f"d{index}"
            plan = PlanOfOneStage(workspace=workspace, digest=digest, log=log, seconds=1.0)
            pool.submit(run, plan, (index, index + 1) if what == "part" else None)
    assert log.read_text().split() == ["begin"] * 3 + ["end"] * 3


def test_a_finished_stage_leaves_no_claim(tmp_path: Path) -> None:
    run(PlanOfOneStage(workspace=str(tmp_path / "workspace"), log=tmp_path / "log"), (0, 4))
    assert {path.name for path in (tmp_path / "workspace").iterdir()} == {"zarr.json", "clips", "tables"}
