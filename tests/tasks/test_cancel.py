from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.exceptions import CancelledRun, TerminationSignal

from storage.claims import claim
from storage.workspace import Workspace, open_artifact
from tasks import cancel
from tasks.cancel import RunCancelled, cancellable_task, raise_if_stopped, time_limit
from tasks.planning.stages import PROPAGATE
from tasks.progress import stage_progress
from tasks.stage import is_transient
from tests._claimed_stage import PlanOfOneStage
from tests._claimed_stage import run as run_stage

STAGE: Any = SimpleNamespace(name="propagate", title="Propagate", ref=SimpleNamespace(digest="d"))


def scope(parent: Any = None) -> Any:
    return cancel._Scope(parent)


def test_a_stage_ends_at_its_next_step_once_its_run_or_the_run_above_it_is_cancelled() -> None:
    dataset = scope()
    with cancel._scope(dataset), cancel._scope(scope(dataset)), stage_progress(STAGE, total=3) as progress:
        progress.report(1)
        dataset.cancelled.set()
        with pytest.raises(RunCancelled):
            progress.report(2)
        dataset.cancelled.clear()
    raise_if_stopped()


def test_a_run_that_is_cancelled_leaves_its_neighbours_alone() -> None:
    dataset = scope()
    one, another = scope(dataset), scope(dataset)
    one.cancelled.set()
    with cancel._scope(another):
        raise_if_stopped()


def test_a_cancelled_run_is_not_tried_again_and_a_stage_out_of_time_is() -> None:
    assert not is_transient(RunCancelled())
    with time_limit(0), pytest.raises(TimeoutError) as caught:
        raise_if_stopped()
    assert is_transient(caught.value)
    with time_limit(60):
        raise_if_stopped()


def test_waiting_for_a_claim_ends_when_the_run_is_cancelled(tmp_path: Path) -> None:
    log = tmp_path / "log"
    plan = PlanOfOneStage(workspace=str(tmp_path / "workspace"), log=log)
    run = scope()
    with ThreadPoolExecutor(1) as pool, claim(Workspace.open(str(tmp_path / "workspace")), plan[PROPAGATE].ref.path):
        with cancel._scope(run):
            waiting = pool.submit(copy_context().run, run_stage, plan)
        time.sleep(0.3)
        assert not waiting.done()
        run.cancelled.set()
        with pytest.raises(RunCancelled):
            waiting.result(timeout=30)
    assert not log.exists()
    assert not open_artifact(plan[PROPAGATE].ref).is_complete()


@pytest.fixture
def transaction(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the test look like a task run, and return the transaction of its result."""
    found = SimpleNamespace(write_on_commit=True)
    context = SimpleNamespace(task_run=SimpleNamespace(flow_run_id=None), client=None)
    monkeypatch.setattr(cancel, "get_transaction", lambda: found)
    monkeypatch.setattr(cancel.TaskRunContext, "get", lambda: context)
    return found


@pytest.mark.parametrize("error", [RunCancelled("cancelled"), CancelledRun("cancelled"), KeyboardInterrupt()])
def test_a_cancelled_task_ends_in_prefects_state_and_nothing_is_kept_as_its_result(
    error: BaseException, transaction: Any
) -> None:
    assert cancellable_task(lambda: 1) == 1
    assert transaction.write_on_commit
    state: Any = cancellable_task(lambda: fail(error))
    assert state.is_cancelled()
    assert not transaction.write_on_commit


@pytest.mark.parametrize(
    ("error", "stopped"), [(TerminationSignal(15), True), (SystemExit(), True), (ValueError(), False)]
)
def test_a_signal_is_passed_on_and_ends_the_stages_that_were_started(
    error: BaseException, stopped: bool, transaction: Any
) -> None:
    scopes: list[Any] = []
    with pytest.raises(type(error)):
        cancellable_task(lambda: scopes.append(cancel._SCOPE.get()) or fail(error))
    assert scopes[0].cancelled.is_set() is stopped
    assert transaction.write_on_commit


def fail(error: BaseException) -> Any:
    raise error


class FakeClient:
    """Answers with the states in turn, the last of them for ever; an error is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def read_flow_run(self, _: Any) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(state=SimpleNamespace(type=SimpleNamespace(value=answer)))


@pytest.mark.parametrize("state", ["CANCELLING", "CANCELLED", "CRASHED"])
def test_a_worker_sees_that_its_flow_run_was_cancelled_though_the_server_was_away(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel, "_SECONDS_BETWEEN_LOOKS", 0.01)
    client: Any = FakeClient("RUNNING", httpx.ConnectError("gone"), RuntimeError("closed"), state)
    run = scope()
    with cancel._watching(run, (client, "id")):  # type: ignore[arg-type]
        assert run.cancelled.wait(60)


def test_a_run_that_goes_on_is_watched_only_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "_SECONDS_BETWEEN_LOOKS", 0.01)
    client: Any = FakeClient("RUNNING")
    run = scope()
    with cancel._watching(run, (client, "id")):  # type: ignore[arg-type]
        (watch,) = [thread for thread in threading.enumerate() if thread.name == "watch of a run"]
        assert not run.cancelled.wait(0.2)
    watch.join(60)
    assert not watch.is_alive()
