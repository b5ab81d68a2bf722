"""As a program: run an edit, a data set of one row or an evaluation.

It prints a line for each report of a stage, and "ended" at last.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.runtime import flow_run

from flows.edit_dataset import edit_dataset
from flows.edit_video import edit_video
from flows.evaluate import evaluate
from flows.settings import WaveSettings, using_settings
from tasks.evaluation.request import evaluation_request
from tasks.planning.dataset import dataset_request
from tasks.planning.request import edit_request
from tasks.progress import listening

__all__ = ["started", "wait_for"]

ROOT = Path(__file__).parents[1]
OPTIONS = {"prompt": "a blue star", "steps": int(os.environ.get("STEPS", "20")), "keyframe_interval": 4}


@contextmanager
def started(
    server: str, what: str, source: Path, workspace: Path, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run this program in a process of its own, which is ended with the context."""
    command = [sys.executable, "-m", "tests._reporting_run", what, str(source), str(workspace)]
    variables = {**os.environ, "PREFECT_API_URL": server, "PYTHONPATH": str(ROOT), **environment}
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], stage: str) -> str:
    """Wait until the stage is under way, or any if it is "any"; return the ID of the outermost flow run."""
    assert process.stdout is not None
    for line in process.stdout:
        if line == "ended\n":
            break
        name, done, total, run = line.split()
        if stage == "any" or (name == stage and 0 < int(done) < int(total)):
            return run
    raise AssertionError(f"the stage {stage} was never under way")


def _report(stage: str, _part: str, done: int, total: int) -> None:
    sys.stdout.write(f"{stage.split()[0]} {done} {total} {flow_run.root_flow_run_id}\n")
    sys.stdout.flush()


def _run(what: str, source: str, workspace: str) -> None:
    settings = WaveSettings(workspace=workspace, max_tasks=2)
    if what == "evaluate":
        evaluate(evaluation_request(comparison="video", quick=True), settings, f"{workspace}/results")
        return
    if what == "edit":
        edit_video(edit_request(video=source, **OPTIONS), settings)
        return
    prompt, options = OPTIONS["prompt"], {name: value for name, value in OPTIONS.items() if name != "prompt"}
    with using_settings(settings):
        edit_dataset(dataset_request(source=source, prompt=prompt, defaults=options))


if __name__ == "__main__":
    try:
        with listening(_report):
            _run(*sys.argv[1:])
    finally:
        sys.stdout.write("ended\n")
        sys.stdout.flush()
