"""The automations on a real server: drills of a death, of a healthy run, and of a data set that has ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect import State, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events import AutomationCore, EventTrigger, emit_event
from prefect.events.actions import ChangeFlowRunState
from prefect.states import Pending, Running, Scheduled
from prefect.workers.process import ProcessWorker

from flows import automations
from flows.automations import FLOW_NAMES, crash_automations, ensure_automations
from flows.edit_dataset import edit_dataset
from flows.edit_video import edit_video
from flows.evaluate import evaluate
from flows.settings import HEARTBEAT_SECONDS, LOST_AFTER_SECONDS
from flows.train_embedded import train_embedded
from tests._prefect import free_port, prefect_server, server_environment, wait_for

DRILL_SECONDS = 60 * float(os.environ.get("DRILL_MINUTES", "2.5"))
"""How long a healthy run and an idle server are watched."""
LOST_AFTER = 75.0
SLEEPER = """
import time
from prefect import flow

@flow(name="edit-video")
def sleep(seconds: float) -> None:
    time.sleep(seconds)
"""


def test_the_automations_watch_the_flows_of_this_project() -> None:
    assert {flow.name for flow in (edit_video, edit_dataset, evaluate, train_embedded)} == set(FLOW_NAMES)


def test_a_run_is_lost_only_after_several_heartbeats_of_any_client() -> None:
    prefects_own = 180
    assert prefects_own < LOST_AFTER_SECONDS
    assert LOST_AFTER_SECONDS > 3 * HEARTBEAT_SECONDS


def test_the_automations_are_created_once_and_stay_off_when_a_person_switches_them_off(server: str) -> None:
    names = ensure_automations("")
    with get_client(sync_client=True) as client:
        first = client.read_automations_by_name(names[0])[0]
        client.pause_automation(first.id)
        client.create_automation(AutomationCore(**first.model_dump(exclude={"id"})))
        assert ensure_automations("", lost_after=LOST_AFTER) == names
        (again,) = client.read_automations_by_name(names[0])
        assert not again.enabled
        assert again.trigger.within.total_seconds() == LOST_AFTER  # type: ignore[union-attr]
        client.delete_automation(again.id)


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/", received
        running.shutdown()


def test_what_became_of_a_data_set_reaches_the_webhook(server: str, webhook: tuple[str, list[dict[str, Any]]]) -> None:
    url, received = webhook
    names = ensure_automations(url)
    time.sleep(3)  # the server loads a new automation a moment later
    emit_event(
        "wave.dataset.failing",
        resource={"prefect.resource.id": "wave.dataset.clips", "prefect.resource.name": "clips"},
        payload={"done": 3, "failed": 1, "text": '3 done, 1 failed ("bad")'},
    )
    wait_for(lambda: received, seconds=60, what="the call of the webhook")
    assert received[0]["dataset"] == "clips"
    assert received[0]["event"] == "wave.dataset.failing"
    assert received[0]["text"] == '3 done, 1 failed ("bad")'
    assert received[0]["counts"]["failed"] == 1
    assert set(ensure_automations("")) < set(names)
    with get_client(sync_client=True) as client:
        assert not client.read_automations_by_name(names[-1])


def test_runs_that_have_not_ended_are_watched_since_a_server_that_was_away_has_forgotten_them(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow(name="edit-video")
    def nothing() -> None:
        pass

    ended = nothing(return_state=True).state_details.flow_run_id
    events = dict[str, str]()
    monkeypatch.setattr(
        automations, "emit_event", lambda event, resource, **_: events.update({resource["prefect.resource.id"]: event})
    )
    with get_client(sync_client=True) as client:
        runs = {state.type.value: client.create_flow_run(nothing, state=state).id for state in (Running(), Pending())}
        ensure_automations("")
        for run in runs.values():
            client.delete_flow_run(run)
    lost, stuck = (automation.trigger for automation in crash_automations())
    assert isinstance(lost, EventTrigger)
    assert isinstance(stuck, EventTrigger)
    assert events[f"prefect.flow-run.{runs['RUNNING']}"] in lost.after - stuck.after
    assert events[f"prefect.flow-run.{runs['PENDING']}"] in stuck.after - lost.after
    assert f"prefect.flow-run.{ended}" not in events


class Drill:
    """A server, a folder with a flow that only sleeps, and clients of the server."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder, self.env = folder, {**env, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}
        (folder / "sleeper.py").write_text(SLEEPER)

    def python(self, code: str) -> subprocess.Popen[bytes]:
        with (self.folder / "client.log").open("ab") as log:
            command = [sys.executable, "-c", code]
            return subprocess.Popen(command, env=self.env, cwd=self.folder, stdout=log, stderr=log)

    def worker(self) -> subprocess.Popen[bytes]:
        with (self.folder / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "wave", "--type", "process"]
            return subprocess.Popen(command, env=self.env, cwd=self.folder, stdout=log, stderr=log)

    def deploy(self, seconds: float) -> UUID:
        """Deploy the flow, and return the id of a new run of it."""
        code = (
            "from sleeper import sleep; d = sleep.to_deployment('sleep', work_pool_name='wave', "
            f"job_variables={{'working_dir': {str(self.folder)!r}}}); d.entrypoint = 'sleeper.sleep'; d.apply()"
        )
        with self.client() as client:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name="wave", type="process", base_job_template=template))
            assert self.python(code).wait(120) == 0
            deployment = client.read_deployment_by_name("edit-video/sleep")
            return client.create_flow_run_from_deployment(deployment.id, parameters={"seconds": seconds}).id

    def client(self) -> Any:
        return get_client(sync_client=True)

    def state(self, run: UUID) -> str:
        with self.client() as client:
            return str(client.read_flow_run(run).state.type.value)

    def runs(self) -> list[UUID]:
        with self.client() as client:
            return [run.id for run in client.read_flow_runs()]


@pytest.fixture
def drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drill]:
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

    env = server_environment(tmp_path / "home", free_port())
    monkeypatch.setenv("PREFECT_API_URL", env["PREFECT_API_URL"])
    with prefect_server(env, tmp_path / "server.log"), temporary_settings({PREFECT_API_URL: env["PREFECT_API_URL"]}):
        ensure_automations("", lost_after=LOST_AFTER)
        yield Drill(tmp_path, env)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_is_marked_as_crashed_after_its_process_and_its_worker_died_and_no_other_run_is(drill: Drill) -> None:
    worker = drill.worker()
    lost = drill.deploy(seconds=3600)
    wait_for(lambda: drill.state(lost) == "RUNNING", seconds=180, what="the start of the run")
    healthy = drill.python(f"from sleeper import sleep; sleep({LOST_AFTER + DRILL_SECONDS})")
    wait_for(lambda: len(drill.runs()) == 2, seconds=120, what="the start of the healthy run")
    (other,) = set(drill.runs()) - {lost}
    tomorrow = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    with drill.client() as client:
        waiting = client.create_flow_run_from_deployment(
            client.read_flow_run(lost).deployment_id,
            parameters={"seconds": 1},
            state=tomorrow,
        ).id
    worker.send_signal(signal.SIGSTOP)  # so that it does not report the death of its process before its own
    for process in psutil.Process(worker.pid).children(recursive=True):
        process.kill()
    worker.kill()
    worker.wait()
    wait_for(lambda: drill.state(lost) == "CRASHED", seconds=LOST_AFTER + 60, what="the mark")
    end = time.monotonic() + DRILL_SECONDS
    while time.monotonic() < end:
        assert drill.state(other) in {"RUNNING", "COMPLETED"}
        assert drill.state(waiting) == "SCHEDULED"
        time.sleep(5)
    assert healthy.wait(LOST_AFTER + 120) == 0
    assert drill.state(other) == "COMPLETED"


def test_a_run_that_has_ended_is_not_marked_whatever_became_of_its_last_heartbeat(server: str) -> None:
    @flow(name="edit-video")
    def nothing() -> None:
        pass

    run = nothing(return_state=True).state_details.flow_run_id
    with get_client(sync_client=True) as client:
        for automation in crash_automations():
            (action,) = automation.actions
            assert isinstance(action, ChangeFlowRunState)
            state = State(type=action.state, name=action.name, message=action.message)
            client.set_flow_run_state(run, state, force=action.force)
        assert client.read_flow_run(run).state.type.value == "COMPLETED"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_died_while_the_server_was_away_is_marked_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

    env = server_environment(tmp_path / "home", free_port())
    monkeypatch.setenv("PREFECT_API_URL", env["PREFECT_API_URL"])
    drill = Drill(tmp_path, env)
    with temporary_settings({PREFECT_API_URL: env["PREFECT_API_URL"]}):
        with prefect_server(env, tmp_path / "server.log"):
            ensure_automations("", lost_after=LOST_AFTER)
            process = drill.python("from sleeper import sleep; sleep(3600)")
            wait_for(lambda: len(drill.runs()) == 1, seconds=120, what="the start of the run")
            (lost,) = drill.runs()
            wait_for(lambda: drill.state(lost) == "RUNNING", seconds=60, what="its first heartbeat")
        process.kill()
        process.wait()
        time.sleep(LOST_AFTER + 70)  # the server forgets what is older by a minute
        with prefect_server(env, tmp_path / "server.log"):
            ensure_automations("", lost_after=LOST_AFTER)
            wait_for(lambda: drill.state(lost) == "CRASHED", seconds=LOST_AFTER + 90, what="the mark")
