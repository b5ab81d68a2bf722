"""Processes of the bench: the `wave` command and a Prefect server, with the CPU and the memory that they take."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import psutil

from tasks.errors import TaskInputError
from tasks.processes import end_process, free_ports, plain_environment

__all__ = ["Server", "Spent", "WaveProcess", "prefect_server", "run_wave"]

_WAVE: Final = "flows.cli"
_START_SECONDS: Final = 240
_WATCH_SECONDS: Final = 0.2
_ROOT: Final = str(Path(__file__).parents[3])


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a process took, in seconds."""

    wall: float
    cpu: float
    """Of all its threads, and of the processes that it started."""


@dataclass(frozen=True, slots=True)
class Server:
    """A Prefect server of the bench."""

    url: str
    home: str
    """Prefect's folder, of the server and of those that talk to it."""
    process: psutil.Process

    def cpu(self) -> float:
        """Return the CPU seconds of the server so far."""
        several = [self.process, *self.process.children(recursive=True)]
        return sum(sum(each.cpu_times()[:2]) for each in several)


class WaveProcess:
    """The `wave` command in a process of its own, without settings of the environment."""

    def __init__(self, *arguments: str, server: Server | None = None, module: str = _WAVE) -> None:
        """Start it.

        Args:
            arguments: of the command.
            server: the Prefect server that it talks to.
            module: another program of this project.
        """
        self._name = " ".join((module, *arguments[:1]))
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by check)
        self._process = subprocess.Popen(  # noqa: S603  (this interpreter and our own module)
            [sys.executable, "-m", module, *arguments],
            env=_environment(server),
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )

    def watch(self) -> Iterator[float]:
        """Yield its memory in megabytes of 2^20 bytes, a few times a second until it ends."""
        found = psutil.Process(self._process.pid)
        while self._process.poll() is None:
            try:
                yield found.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                return
            time.sleep(_WATCH_SECONDS)

    def check(self) -> None:
        """Wait for its end.

        Raises:
            TaskInputError: if it failed.
        """
        code = self._process.wait()
        with self._said:
            self._said.seek(0)
            said = self._said.read().strip().splitlines()
        if code:
            raise TaskInputError(f"{self._name} ended with code {code}: {(said or ['it wrote no message'])[-1]}.")


def run_wave(*arguments: str, server: Server | None = None, module: str = _WAVE) -> Spent:
    """Run the `wave` command, or another program of this project; see `WaveProcess`.

    Raises:
        TaskInputError: if it failed.
    """
    started, before = time.perf_counter(), _children_cpu()
    WaveProcess(*arguments, server=server, module=module).check()
    return Spent(wall=time.perf_counter() - started, cpu=_children_cpu() - before)


@contextmanager
def prefect_server(folder: Path) -> Iterator[Server]:
    """Start a Prefect server on a free port of loopback, with its database in a folder, and end it.

    Raises:
        TaskInputError: if it does not start.
    """
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/api"
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603  (this interpreter, on loopback)
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env={**_environment(None), "PREFECT_HOME": str(folder / "prefect")},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(url, process)
            yield Server(url, str(folder / "prefect"), psutil.Process(process.pid))
        finally:
            end_process(process)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + _START_SECONDS
    while time.monotonic() < limit and process.poll() is None:
        try:
            with urlopen(f"{url}/health", timeout=5):  # noqa: S310  (the server that was just started)
                return
        except OSError:
            time.sleep(0.5)
    raise TaskInputError(f"The Prefect server of the bench did not start within {_START_SECONDS} s.")


def _environment(server: Server | None) -> dict[str, str]:
    prefect = {} if server is None else {"PREFECT_API_URL": server.url, "PREFECT_HOME": server.home}
    return plain_environment() | prefect


def _children_cpu() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
