"""An edit by the `wave` command while Prefect's server goes away, and comes back later."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.planning.request import EditRequest
from tasks.processes import free_ports, plain_environment

__all__ = ["edit_without_server"]

_START_SECONDS: Final = 240.0
_SECONDS_BETWEEN_LOOKS: Final = 0.1


def edit_without_server(request: EditRequest, url: str, folder: Path, *, seconds: float) -> int:
    """Edit a clip, kill the server once the first stage is computed, and start it again later on the same port.

    The command is repeated while it fails; return how often it did.

    Args:
        request: what is edited.
        url: workspace of the edit.
        folder: an empty folder for the files of the server.
        seconds: how long the server stays away.

    Raises:
        TaskInputError: if the server does not start, or the edit fails although it is there.
    """
    (port,) = free_ports(1)
    api = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_HOME": str(folder), "WAVE_DEVICE": "cpu", "WAVE_PROPAGATION_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    environment = plain_environment() | own | {"PREFECT_API_URL": api}
    with _server(port, environment):
        edit = _command(request, url, environment)
        _until(lambda: edit.poll() is not None or _has_jobs(url), "the first stage")
    time.sleep(seconds)
    with _server(port, environment):
        failed = edit.wait() != 0
        if failed and _command(request, url, environment).wait() != 0:
            raise TaskInputError(f"The edit failed twice, with the Prefect server at {api}.")
    return int(failed)


def _command(request: EditRequest, url: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    given = request.model_dump(exclude_defaults=True, exclude={"video"})
    options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return subprocess.Popen(  # noqa: S603  (this interpreter and our own module)
        [sys.executable, "-m", "flows.cli", "edit", request.video, "--workspace", url, *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _has_jobs(url: str) -> bool:
    return bool(Workspace.open(url).files.sizes("tables/jobs"))


@contextmanager
def _server(port: int, environment: dict[str, str]) -> Iterator[None]:
    """Run a server in this context, and kill it at its end."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(  # noqa: S603  (this interpreter, on loopback)
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _until(lambda: process.poll() is not None or _answers(port), "the Prefect server")
        if process.poll() is not None:
            raise TaskInputError(f"The Prefect server of the drill ended with code {process.returncode}.")
        yield
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _START_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TaskInputError(f"The drill waited {_START_SECONDS:.0f} s for {what}, and it did not come.")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
