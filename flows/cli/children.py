"""Child processes: started again when one dies, and ended together with all that they began."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from tasks.errors import TaskInputError

__all__ = ["Child", "Stop", "end_children", "run_to_end", "stop_signals", "watch"]

_GRACE_SECONDS = 45.0  # a flow run has 30 s to end
_REPORT_SECONDS = 5.0  # a worker reports the death of a flow run within seconds
_PAUSE_SECONDS = 5.0
_LIVED_SECONDS = 60.0
_TRIES = 3


class Stop(threading.Event):
    """Is set by the first signal to end; a second one ends everything at once."""

    def __init__(self) -> None:
        """Create an event that is not set."""
        super().__init__()
        self.at_once = False


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Set an event on SIGINT, SIGTERM and SIGHUP, instead of what they do otherwise."""
    stop = Stop()

    def end(_number: int, _frame: object) -> None:
        stop.at_once = stop.is_set()
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True, kw_only=True)
class Child:
    """A command, and the process that runs it now."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    quiet: bool = False
    """Whether its standard output is dropped."""
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    early_ends: int = 0

    def start(self) -> None:
        """Start the command in a session of its own, which a terminal's Ctrl-C does not reach."""
        output = subprocess.DEVNULL if self.quiet else None
        self.started = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603  (commands of this project)
            self.command, env=self.env, stdin=subprocess.DEVNULL, stdout=output, start_new_session=True
        )

    def is_alive(self) -> bool:
        """Return whether its process runs."""
        return self.process is not None and self.process.poll() is None

    def descendants(self) -> list[psutil.Process]:
        """Return the processes that its process has begun, and those that they began."""
        if self.process is None or not self.is_alive():
            return []
        with suppress(psutil.NoSuchProcess):
            return list(psutil.Process(self.process.pid).children(recursive=True))
        return []


def watch(children: Sequence[Child], stop: Stop) -> None:
    """Start every child that is not running, again and again, until the event is set.

    Raises:
        TaskInputError: if a child ends several times right after its start.
    """
    while not stop.is_set():
        for child in children:
            if not child.is_alive():
                _start_again(child)
        stop.wait(_PAUSE_SECONDS)


def _start_again(child: Child) -> None:
    lived = time.monotonic() - child.started
    child.early_ends = child.early_ends + 1 if child.process is not None and lived < _LIVED_SECONDS else 0
    if child.early_ends >= _TRIES:
        raise TaskInputError(f"The {child.name} ends right after its start; what it printed says why.")
    child.start()


def run_to_end(child: Child, stop: Stop) -> int | None:
    """Run a command to its end and return its exit code; None if the event was set before."""
    child.start()
    while child.is_alive():
        if stop.wait(0.2):
            return None
    return None if child.process is None else child.process.returncode


def end_children(children: Sequence[Child], stop: Stop) -> None:
    """End children together with all that they began: by SIGTERM, and by SIGKILL what takes too long.

    What a child began ends first: a flow run reports its end to its worker, and both to the server.

    Args:
        children: those that may end at the same time.
        stop: a second signal ends all of them at once.
    """
    begun = [process for child in children for process in child.descendants()]
    _end(begun, stop)
    if begun:
        _pause(_REPORT_SECONDS, stop)
    alive = [psutil.Process(child.process.pid) for child in children if child.process and child.is_alive()]
    begun += [process for child in children for process in child.descendants()]
    _end(alive, stop)
    _end(begun, stop)  # what a worker began meanwhile
    for child in children:
        if child.process is not None:
            child.process.wait()


def _end(processes: Sequence[psutil.Process], stop: Stop) -> None:
    _send(processes, signal.SIGTERM)
    _pause(_GRACE_SECONDS, stop, until=lambda: not any(map(_runs, processes)))
    _send(processes, signal.SIGKILL)


def _pause(seconds: float, stop: Stop, *, until: Callable[[], bool] = lambda: False) -> None:
    """Wait until a condition is true or a second signal comes, so many seconds at most."""
    end = time.monotonic() + seconds
    while not until() and not stop.at_once and time.monotonic() < end:
        time.sleep(0.1)


def _send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # psutil does not take a new process of the same id for it
            process.send_signal(number)


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
