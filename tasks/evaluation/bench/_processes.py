"""Processes of the bench: the `wave` command and a Prefect server, with the CPU and the memory that they take."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.request import urlopen

import psutil

from tasks.errors import TaskInputError
from tasks.processes import end_process, free_ports, plain_environment

__all__ = ["Server", "Spent", "WaveProcess", "cpu_of", "prefect_server", "run_wave", "started_processes"]

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
        return cpu_of([self.process])


def cpu_of(processes: Iterable[psutil.Process]) -> float:
    """Return the CPU seconds of processes so far, with those that they have started; of ended ones nothing.

    What a process's ended children took is in its own figures.
    """
    spent = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    spent += sum(each.cpu_times()[:4])
    return spent


@contextmanager
def started_processes() -> Iterator[list[psutil.Process]]:
    """Yield a list that contains, after the context, the processes that were started in it and still run."""
    this = psutil.Process()
    before, found = {*this.children()}, list[psutil.Process]()
    yield found
    found += [process for process in this.children() if process not in before]


class WaveProcess:
    """The `wave` command in a process of its own, without settings of the environment."""

    def __init__(
        self,
        *arguments: str,
        server: Server | None = None,
        module: str = _WAVE,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start it.

        Args:
            arguments: of the command.
            server: the Prefect server that it talks to.
            module: another program of this project.
            environment: further variables.
        """
        self._name = " ".join((module, *arguments[:1]))
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by check)
        self._process = subprocess.Popen(  # noqa: S603  (this interpreter and our own module)
            [sys.executable, "-m", module, *arguments],
            env={**_environment(server), **environment},
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )

    @property
    def process(self) -> psutil.Process:
        """The process itself."""
        return psutil.Process(self._process.pid)

    def watch(self) -> Iterator[float]:
        """Yield its memory in megabytes of 2^20 bytes, a few times a second until it ends."""
        found = self.process
        while self._process.poll() is None:
            try:
                memory = found.memory_info().rss
            except psutil.NoSuchProcess:
                return
            if not memory:  # it has ended, and waits to be asked for its code
                return
            yield memory / 2**20
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
def prefect_server(folder: Path, *, database: str = "") -> Iterator[Server]:
    """Start a Prefect server on a free port of loopback, and end it.

    Args:
        folder: for its files, and for its database in SQLite where no other is given.
        database: URL of a PostgreSQL database.

    Raises:
        TaskInputError: if it does not start.
    """
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_HOME": str(folder / "prefect")}
    if database:
        own["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database.replace("postgresql:", "postgresql+asyncpg:")
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603  (this interpreter, on loopback)
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env={**_environment(None), **own},
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
