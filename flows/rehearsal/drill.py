"""The rehearsal itself: run a data set through its deployment, kill parts of what runs it, and resume it each time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import psutil
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows.automations import ensure_automations
from flows.rehearsal.api import Api
from flows.rehearsal.dataset import RehearsalSet
from flows.rehearsal.pages import Browser
from flows.rehearsal.parts import Parts, RehearsalRequest, Served, kill
from storage.claims import CLAIMS, live_claims
from storage.digest import digest_file_once
from storage.status_table import StatusTable
from storage.workspace import Workspace
from tasks.errors import TaskInputError

__all__ = ["Story", "rehearse"]

_GPU_STAGES: Final = {"inversion", "keyframes"}
_LOST_AFTER, _START_WITHIN = 120.0, 120.0
"""Seconds after which the automations mark a run: less than in use, so that the rehearsal takes minutes."""
_ENDED: Final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
_LIMIT_SECONDS: Final = 3600.0
_SECONDS_BETWEEN_LOOKS, _SECONDS_BETWEEN_STATES = 0.05, 2.0
_DEATHS: Final = 2


@dataclass(slots=True, kw_only=True)
class Story:
    """What happened in a rehearsal."""

    workspace: str
    output: str
    quiet_output: str
    pending: bool = False
    """Whether a worker was killed between PENDING and RUNNING."""
    stage: str = ""
    """The artifact of the GPU stage in which a worker was killed; empty if none was."""
    server: bool = False
    """Whether the server was killed, and came back."""
    deaths: int = 0
    """How often the process was killed while the row that kills was in a GPU stage."""
    crashed: int = 0
    """Runs that were marked as crashed, and resumed."""
    states: list[str] = field(default_factory=list)
    """The last state of each run of the data set."""
    scheduled: UUID | None = None
    """The run that the schedule started at the end."""
    scheduled_state: str = ""
    scheduled_children: int = 0
    jobs_before: int = 0
    """Jobs that had been computed when the scheduled run started."""
    seconds: float = 0.0
    """From the first start to the end of the last resumed run."""
    quiet_seconds: float = 0.0


def rehearse(request: RehearsalRequest, parts: Parts, data: RehearsalSet, say: Callable[[str], None]) -> Story:
    """Run the rehearsal to its end.

    Args:
        request: what is rehearsed.
        parts: what runs already.
        data: the data set.
        say: is called with a line about each thing that happens.

    Raises:
        TaskInputError: if a part does not do what the next step needs.
    """
    story = Story(
        workspace=f"{parts.store}/workspace", output=f"{parts.store}/edited", quiet_output=f"{parts.store}/quiet-edited"
    )
    settings = {PREFECT_API_URL: parts.api, PREFECT_HOME: parts.folder / "prefect"}
    with temporary_settings(settings), _served(parts, story.workspace) as served:
        drill = _Drill(request, parts, data, story, served, say)
        drill.run()
    return story


@contextmanager
def _served(parts: Parts, workspace: str) -> Iterator[Served]:
    served = Served(parts, workspace)
    try:
        yield served
    finally:
        served.end()


class _Drill:
    """The steps, in their order."""

    def __init__(
        self,
        request: RehearsalRequest,
        parts: Parts,
        data: RehearsalSet,
        story: Story,
        served: Served,
        say: Callable[[str], None],
    ) -> None:
        self._request, self._parts, self._data, self._story = request, parts, data, story
        self._served, self._say, self._api = served, say, Api()
        self._workspace = Workspace.open(story.workspace)
        self._table = StatusTable(self._workspace, data.manifest.stem)
        self._killer = digest_file_once(data.killer_clip)
        self._browser = Browser(request.pictures, parts.api.removesuffix("/api"))
        self._dataset = {"source": str(data.manifest), "output": story.output}

    def run(self) -> None:
        self._served.worker(seconds=900)  # it starts after the deployments and the automations have been created
        ensure_automations("", _LOST_AFTER, start_within=_START_WITHIN)
        self._say(f"Prefect: {self._parts.api.removesuffix('/api')}")
        started = time.monotonic()
        run = self._api.start(self._dataset).id
        self._kill_before_it_runs(run)
        self._run_quietly()  # while the first run waits for its mark
        self._carry_on(run)
        self._story.seconds = time.monotonic() - started
        self._run_on_schedule()

    def _kill_before_it_runs(self, run: UUID) -> None:
        """Kill the worker as soon as it has taken the run."""
        self._until(lambda: self._api.state(run) == "PENDING", "the worker to take the run", pause=0.1)
        kill(self._served.worker())
        self._story.pending = self._api.state(run) == "PENDING"
        self._say("Killed the worker between PENDING and RUNNING")

    def _run_quietly(self) -> None:
        """Run the same data set in another workspace with nothing killed."""
        workspace, started = f"{self._parts.store}/quiet", time.monotonic()
        options = ("--workspace", workspace, "--output", self._story.quiet_output)
        log = self._parts.folder / "quiet.log"
        with log.open("wb") as output:
            code = subprocess.run(  # noqa: S603  (this interpreter and our own module)
                [sys.executable, "-m", "flows.cli", "dataset", str(self._data.manifest), *options],
                env=self._parts.environment,
                cwd=self._parts.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        self._story.quiet_seconds = time.monotonic() - started
        if code != 1:  # the bad rows fail
            raise TaskInputError(f"The quiet run ended with code {code} instead of 1: see {log}.")
        self._say(f"A quiet run took {self._story.quiet_seconds:.0f} s")

    def _carry_on(self, run: UUID) -> None:
        """Watch the runs, kill what is to be killed, and resume each run that ends before the data set is complete."""
        end, looked = time.monotonic() + _LIMIT_SECONDS, 0.0
        while time.monotonic() < end:
            if time.monotonic() - looked > _SECONDS_BETWEEN_STATES:
                state, looked = self._api.state(run), time.monotonic()
                if state in _ENDED:
                    self._story.states.append(state)
                    self._say(f"The run is {state.lower()}: {self._counts()}")
                    if state == "COMPLETED" and not self._left():
                        self._picture(run, "end")
                        return
                    run = self._resume(run, state)
            self._act(run)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        raise TaskInputError(f"The data set was not complete after {_LIMIT_SECONDS:.0f} s: {self._counts()}.")

    def _resume(self, run: UUID, state: str) -> UUID:
        """Run `wave resume`, and return the new run."""
        self._story.crashed += state == "CRASHED"
        done = subprocess.run(  # noqa: S603  (this interpreter and our own module)
            [sys.executable, "-m", "flows.cli", "resume", str(run)],
            env=self._parts.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise TaskInputError(f"wave resume failed: {done.stderr.strip().splitlines()[-1]}")
        self._say("Resumed")
        return UUID(done.stdout.strip().rpartition(" ")[2])

    def _act(self, run: UUID) -> None:
        """Kill a part if this is the moment for it."""
        stages = self._running_stages()
        if not stages:
            return
        killing = next((path for path in stages if path.split("/")[1] == self._killer), None)
        if killing is not None:
            self._kill_process_of(killing)
        elif not self._story.stage:
            self._kill_worker_in(next(iter(stages)))
        elif not self._story.server and self._done() * 3 >= len(self._data.good):
            self._kill_server(run)

    def _kill_process_of(self, path: str) -> None:
        """Kill the process of the run, and that of the stage if it is another one; the worker lives and reports it."""
        if self._story.deaths >= _DEATHS:
            raise TaskInputError("The row that kills was started a third time: it was not set aside.")
        self._story.deaths += 1
        kill(*self._served.runs(), *self._holder(path))
        self._say(f"Killed the process of the run in {path}")
        self._until(lambda: not self._running_stages(), "the stages to end")

    def _kill_worker_in(self, path: str) -> None:
        """Kill the worker and the process that computes a stage: on Dask the worker that computes it."""
        kill(*(self._holder(path) if self._request.dask else [self._served.worker()]))
        self._story.stage = path
        self._say(f"Killed a worker in {path}")

    def _kill_server(self, run: UUID) -> None:
        kill(self._served.server())
        self._story.server = True
        self._say("Killed the server")
        started = time.monotonic()
        self._api.wait()
        self._say(f"The server is back after {time.monotonic() - started:.0f} s")
        self._picture(run, "middle")

    def _run_on_schedule(self) -> None:
        """Switch the nightly schedule on for the next minute, and wait for the run that it starts."""
        before = {each.id for each in self._api.started()}
        self._story.jobs_before = self._jobs()
        self._api.switch_schedule(on=True, request=self._dataset)
        self._say("Switched the schedule on")
        try:
            self._until(lambda: self._new_run(before) is not None, "the scheduled run to start")
        finally:
            self._api.switch_schedule(on=False)
        run = self._new_run(before)
        if run is None:
            raise TaskInputError("The scheduled run has vanished.")
        self._until(lambda: self._api.state(run) in _ENDED, "the scheduled run to end")
        self._story.scheduled, self._story.scheduled_state = run, self._api.state(run)
        self._story.scheduled_children = self._api.children(run)
        self._say(f"The scheduled run is {self._story.scheduled_state.lower()}")

    def _new_run(self, before: set[UUID]) -> UUID | None:
        return next((each.id for each in self._api.started() if each.id not in before), None)

    def _jobs(self) -> int:
        from storage.job_table import JobTable  # noqa: PLC0415

        return len(JobTable(self._workspace).read())

    def _running_stages(self) -> list[str]:
        """Return the paths of the results of GPU stages that are being computed."""
        found = (name for name in live_claims(self._workspace, "clips") if name.split("/")[2] in _GPU_STAGES)
        return [path for path in found if self._holder(path)] if "://" in self._workspace.url else list(found)

    def _holder(self, path: str) -> list[psutil.Process]:
        """Return the process that computes a result in an object store; all are on this machine."""
        key = f"{CLAIMS}/{path}.lock"
        for data in self._workspace.files.read_many([key]).values():
            process = json.loads(data)["process"] if data else 0
            if process and psutil.pid_exists(process):
                return [psutil.Process(process)]
        return []

    def _done(self) -> int:
        return int((self._table.latest()["state"] == "done").sum())

    def _left(self) -> bool:
        states = self._table.latest()["state"]
        return bool(states.isin({"running", "cancelled"}).any())

    def _counts(self) -> str:
        counts: Any = self._table.latest()["state"].value_counts()
        return ", ".join(f"{count} {state}" for state, count in counts.items()) or "no rows yet"

    def _picture(self, run: UUID, when: str) -> None:
        for path, name in ((f"/runs/flow-run/{run}", f"run-{when}"), ("/runs", f"runs-{when}")):
            if reason := self._browser.picture(path, name):
                self._say(reason)  # what is rehearsed goes on without it

    def _until(self, condition: Callable[[], bool], what: str, *, pause: float = 1.0, seconds: float = 900) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TaskInputError(f"The rehearsal waited {seconds:.0f} s in vain for {what}.")
            time.sleep(pause)
