"""Child processes: started again, and ended with all that they began."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.cli import children
from flows.cli.children import Child, Stop, end_children, run_to_end, stop_signals, watch
from tasks.errors import TaskInputError
from tests._prefect import wait_for

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=True)
print(child.pid, file=open({file!r}, "w"), flush=True)
time.sleep(600)
"""
SLEEP = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def child(code: str, *, name: str = "child") -> Child:
    return Child(name=name, command=(sys.executable, "-c", code), env=os.environ)


def grandchild(file: Path) -> psutil.Process:
    wait_for(lambda: file.exists() and file.read_text(), seconds=60, what="the grandchild")
    return psutil.Process(int(file.read_text()))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(children, "_GRACE_SECONDS", 1.0)
    monkeypatch.setattr(children, "_REPORT_SECONDS", 0.1)


@pytest.mark.parametrize("code", [SLEEP, STUBBORN])
@pytest.mark.usefixtures("quick")
def test_a_child_ends_with_what_it_began_even_in_another_session(tmp_path: Path, code: str) -> None:
    one = child(PARENT.format(child=code, file=str(tmp_path / "pid")))
    one.start()
    begun = grandchild(tmp_path / "pid")
    end_children([one], Stop())
    assert not one.is_alive()
    assert not begun.is_running() or begun.status() == psutil.STATUS_ZOMBIE


@pytest.mark.usefixtures("quick")
def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    one, stop = child(SLEEP), Stop()
    pids = list[int]()

    def wait(_seconds: float) -> bool:
        assert one.process is not None
        pids.append(one.process.pid)
        if len(pids) == 1:
            one.process.kill()
            one.process.wait()
        else:
            stop.set()
        return stop.is_set()

    stop.wait = wait  # type: ignore[method-assign,assignment]
    watch([one], stop)
    assert one.is_alive()
    assert len(set(pids)) == 2
    end_children([one], stop)


@pytest.mark.usefixtures("quick")
def test_a_child_that_always_dies_is_given_up_with_a_sentence() -> None:
    with pytest.raises(TaskInputError, match="The worker ends right after its start"):
        watch([child("raise SystemExit(1)", name="worker")], Stop())


def test_a_command_runs_to_its_end_unless_a_signal_comes() -> None:
    assert run_to_end(child("raise SystemExit(3)"), Stop()) == 3
    stop, one = Stop(), child(SLEEP)
    stop.set()
    assert run_to_end(one, stop) is None
    end_children([one], stop)


def test_the_first_signal_ends_and_the_second_one_ends_at_once() -> None:
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert (stop.is_set(), stop.at_once) == (True, False)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop.at_once
