"""Edits with writes that fail, and what must be true afterwards."""

from __future__ import annotations

import os
import re
import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import cv2

from storage.errors import UnreachableError
from storage.faults import Effect, Faults
from storage.files import is_partial
from storage.inventory import take_inventory
from storage.job_table import JobTable
from storage.workspace import Workspace
from tasks.planning.plan import Execution
from tasks.planning.prepare import prepare_edit
from tasks.planning.request import EditRequest
from tasks.run_stages import run_stages

__all__ = ["Quiet", "complete_jobs", "content", "fails_then_resumes", "interrupted", "run_edit", "run_quietly"]


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """What an edit without faults writes."""

    keys: tuple[str, ...]
    """The key of each write."""
    content: dict[str, str]
    jobs: frozenset[str]


def run_edit(request: EditRequest, url: str) -> None:
    """Do what the same command does each time: plan the edit by what is stored, and run what is missing."""
    run_stages(prepare_edit(request, execution=Execution(workspace=url)))


def run_quietly(request: EditRequest, url: str) -> Quiet:
    faults = Faults()
    with faults.injected():
        run_edit(request, url)
    return Quiet(keys=tuple(faults.keys), content=content(url), jobs=frozenset(_computed(url)))


def content(url: str) -> dict[str, str]:
    """Return the digest of everything below clips/ but records and reports, which contain how long a stage took."""
    files = Workspace.open(url).files
    keys = [key for key in files.sizes() if key.startswith("clips/") and not is_partial(key) and not _timed(key)]
    return {key: sha256(data).hexdigest() for key, data in files.read_many(keys).items()}


def _timed(key: str) -> bool:
    return re.search(r"/(complete|report|parts/[^/]+)\.json$", key) is not None


def _computed(url: str) -> list[str]:
    return list(JobTable(Workspace.open(url)).read()["job"])


def complete_jobs(url: str, jobs: frozenset[str]) -> set[str]:
    """Return those jobs that the workspace says are complete."""
    workspace = Workspace.open(url)

    def is_complete(job: str) -> bool:
        folder, _, part = job.rpartition("/")
        whole, stretch = workspace.artifact(job), workspace.artifact(folder)
        return whole.is_complete() or (part[:1].isdigit() and (stretch.is_complete() or stretch.has_part(part)))

    return set(filter(is_complete, jobs))


def interrupted(request: EditRequest, url: str, faults: Faults, *, dies: bool) -> bool:
    """Run the edit with faults; return whether one of them ended it."""
    if dies:
        return _killed(lambda: _run_with(faults, request, url))
    try:
        _run_with(faults, request, url)
    except (OSError, UnreachableError) as error:
        assert "made to fail" in str(error)  # noqa: PT017
        return True
    return False


def _run_with(faults: Faults, request: EditRequest, url: str) -> None:
    with faults.injected():
        run_edit(request, url)


def _killed(run: Callable[[], None]) -> bool:
    """Call a function in a forked process; return whether it was killed.

    A fork, since importing everything takes longer than the edit; with one thread everywhere, as in these tests, no
    lock can be in the hands of another one.
    """
    cv2.setNumThreads(1)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of a fork with threads
        child = os.fork()
    if child == 0:
        try:
            run()
        except BaseException:  # noqa: BLE001  (the child must not go on with the parent's tests)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.WIFSIGNALED(status)


def fails_then_resumes(request: EditRequest, url: str, quiet: Quiet, *, number: int, effect: Effect) -> None:
    """Let one write fail, check what is left, run the edit again, and check that it is the quiet one."""
    faults = Faults(choose=lambda each, _: effect if each == number else None)
    assert interrupted(request, url, faults, dies=effect == "kill")
    check_left(url, quiet)
    resumes(request, url, quiet)


def check_left(url: str, quiet: Quiet) -> None:
    """Check that what counts as complete has the bytes of the quiet run."""
    found, workspace = content(url), Workspace.open(url)
    for artifact in take_inventory(workspace).artifacts:
        if artifact.complete:
            own = {key for key in quiet.content if key.startswith(f"{artifact.path}/")}
            assert {key: found.get(key) for key in own} == {key: quiet.content[key] for key in own}


def resumes(request: EditRequest, url: str, quiet: Quiet) -> None:
    """Run the edit to its end, and check that it computes what is missing and nothing else."""
    complete, before = complete_jobs(url, quiet.jobs), _computed(url)
    run_edit(request, url)
    after = _computed(url)
    again = after[len(before) :]
    assert len(set(after)) == len(after)
    assert set(again) == quiet.jobs - complete
    found = content(url)
    assert {key for key in found.keys() | quiet.content.keys() if found.get(key) != quiet.content.get(key)} == set()
