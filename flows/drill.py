"""The drill: a small edit on storage that fails in every way, resumed each time, and compared with a quiet one.

As a program it prints a JSON object for each fault. It uses one thread, so that it can fork a process for each run
after everything has been imported once; `run_drill` starts it so.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, tzinfo
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final, Self
from unittest import mock

import cv2
import torch

from flows.server_away import edit_without_server
from storage.faults import Effect, Faults
from storage.job_table import JobTable
from storage.video import write_video
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.planning.plan import Execution
from tasks.planning.prepare import prepare_edit
from tasks.planning.request import EditRequest, edit_request
from tasks.planning.stages import PROPAGATE
from tasks.processes import plain_environment
from tasks.run_stages import run_stages
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import random_scene

__all__ = ["Outcome", "drill", "run_drill"]

_FRAMES, _SIZE, _SEED = 3, (64, 64), 3
_MOST_RUNS: Final = 12
_SMALL_FILE: Final = 4096
"""Bytes that a file may have on the full disk."""
_AWAY: Final = 60.0
"""Seconds without Prefect's server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one fault."""

    fault: str
    failed: int
    """Runs that the fault ended."""
    twice: int
    """Jobs that were computed twice."""
    same: bool
    """Whether the edit was finished, with the frames of the quiet run."""

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, and nothing was computed twice."""
        return self.same and self.twice == 0


def run_drill() -> Iterator[Outcome]:
    """Run the drill in a process of its own, and yield what comes of each fault.

    Raises:
        TaskInputError: if the drill does not run to its end.
    """
    environment = plain_environment() | {"OMP_NUM_THREADS": "1", "WAVE_PROPAGATION_DEVICE": "cpu"}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.drill"], env=environment, stdout=subprocess.PIPE, text=True
    )
    with process:
        for line in process.stdout or ():
            yield Outcome(**json.loads(line))
    if process.returncode:
        raise TaskInputError(f"The drill ended with code {process.returncode}.")


def drill(folder: Path) -> Iterator[Outcome]:
    """Yield what comes of each fault, of edits in workspaces below a folder."""
    request = _request(folder)
    quiet = Faults()
    with quiet.injected():
        _edit(request, str(folder / "quiet"))
    wanted = _frames(request, str(folder / "quiet"))
    for number, (fault, runs) in enumerate(_faults(request, quiet.keys)):
        url = str(folder / str(number))
        failed = runs(url)
        jobs = list(JobTable(Workspace.open(url)).read()["job"])
        yield Outcome(
            fault=fault, failed=failed, twice=len(jobs) - len(set(jobs)), same=_frames(request, url) == wanted
        )


def _request(folder: Path) -> EditRequest:
    clip = folder / "clip.mp4"
    frames = render(random_scene(_SEED, size=_SIZE, frame_count=_FRAMES)).frames
    write_video(clip, frames, timestamps=range(_FRAMES), time_base=Fraction(1, 12))
    return edit_request(video=str(clip), prompt="a blue star", source_prompt="a red star", steps=2, keyframe_interval=2)


def _edit(request: EditRequest, url: str) -> None:
    run_stages(prepare_edit(request, execution=Execution(workspace=url)))


def _frames(request: EditRequest, url: str) -> bytes:
    """Return the edited frames of a finished edit; nothing of another."""
    workspace = Workspace.open(url)
    with suppress(ValueError):
        artifact = workspace.artifact(prepare_edit(request, execution=Execution(workspace=url))[PROPAGATE].ref)
        if artifact.is_complete():
            return artifact.read_region("frames").tobytes()
    return b""


def _faults(request: EditRequest, keys: Sequence[str]) -> Iterator[tuple[str, Callable[[str], int]]]:
    """Yield each fault, and a function that runs an edit with it until it is finished and returns the failures."""

    def edit(url: str) -> None:
        _edit(request, url)

    def with_faults(choose: Callable[[int, str], Effect | None]) -> Callable[[str], None]:
        def run(url: str) -> None:
            with Faults(choose=choose).injected():
                edit(url)

        return run

    def kill_at(at: int) -> Callable[[int, str], Effect | None]:
        return lambda number, _: "kill" if number == at else None

    for stage, at in _middle_writes(keys):
        yield f"killed in {stage}, at write {at}", partial(_until_done, faulty_run=with_faults(kill_at(at)), run=edit)
    yield "full disk", lambda url: _until_done(url, lambda each: _on_a_full_disk(edit, each), edit)
    yield (
        "read-only workspace",
        lambda url: _until_done(url, with_faults(lambda number, _: "error"), edit),
    )
    yield (
        "one write in twenty fails",
        lambda url: _until_done(url, with_faults(_one_in_twenty), edit, faulty=_MOST_RUNS),
    )
    yield "Prefect's server away for a minute", lambda url: _without_server(request, url)
    yield "two processes on one clip", lambda url: _together(edit, url)
    yield (
        "killed, and the clock set back a day",
        lambda url: _until_done(url, with_faults(kill_at(len(keys) // 2)), lambda each: _yesterday(edit, each)),
    )


def _middle_writes(keys: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield each stage that writes, and the number of a write in its middle: those between two rows of jobs."""
    ends = [number for number, key in enumerate(keys) if key.startswith("tables/jobs/")]
    for start, end in zip([0, *ends], ends, strict=False):
        middle = (start + end + 1) // 2
        parts = keys[middle].split("/")
        yield parts[4 if "edits" in parts else 2], middle


def _one_in_twenty(number: int, _: str) -> Effect | None:
    return "error" if number % 20 == 19 else None


def _until_done(url: str, faulty_run: Callable[[str], None], run: Callable[[str], None], *, faulty: int = 1) -> int:
    """Run with the fault so often at most, then without; return how many runs failed."""
    failed = 0
    for _ in range(faulty):
        if _succeeds(faulty_run, url):
            return failed
        failed += 1
    return failed + (not _succeeds(run, url))


def _without_server(request: EditRequest, url: str) -> int:
    with tempfile.TemporaryDirectory(prefix="wave-drill-server-") as folder:
        return edit_without_server(request, url, Path(folder), seconds=_AWAY)


def _together(run: Callable[[str], None], url: str) -> int:
    children = [_start(run, url) for _ in range(2)]
    return sum(not _ended_well(child) for child in children)


def _succeeds(run: Callable[[str], None], url: str) -> bool:
    return _ended_well(_start(run, url))


def _start(run: Callable[[str], None], url: str) -> int:
    """Call a function in a forked process; return its id."""
    child = os.fork()
    if child:
        return child
    try:
        run(url)
    except OSError:  # the fault
        os._exit(1)
    except BaseException:  # noqa: BLE001  (the child must not go on with the parent's work)
        traceback.print_exc()
        os._exit(2)
    os._exit(0)


def _ended_well(child: int) -> bool:
    return os.waitpid(child, 0)[1] == 0


def _on_a_full_disk(run: Callable[[str], None], url: str) -> None:
    """Call a function where no file can grow beyond some bytes: a disk that is full for whoever has no root."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (_SMALL_FILE, _SMALL_FILE))
    run(url)


class _Yesterday(datetime):
    """The clock, a day back."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) - timedelta(days=1)


def _yesterday(run: Callable[[str], None], url: str) -> None:
    """Call a function in a process in which records are appended by a clock that is a day back."""
    with mock.patch("storage._record_files.datetime", _Yesterday):
        run(url)


if __name__ == "__main__":
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="wave-drill-") as place:
        for outcome in drill(Path(place)):
            sys.stdout.write(f"{json.dumps(asdict(outcome))}\n")
            sys.stdout.flush()
