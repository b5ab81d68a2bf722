"""A Prefect server, and commands against it, on a free loopback port."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.cli.server import is_healthy
from tasks.processes import end_process, free_ports, plain_environment

__all__ = ["ROOT", "ended", "free_port", "prefect_server", "server_environment", "wait_for"]

ROOT = Path(__file__).parents[1]
_START_SECONDS = 240


def free_port() -> int:
    return free_ports(1)[0]


def server_environment(home: Path, port: int, **more: str) -> dict[str, str]:
    """Return the environment of a server with a database of its own, and of its clients."""
    return plain_environment() | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "OMP_NUM_THREADS": "1",
        **more,
    }


@contextmanager
def prefect_server(env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the context ends."""
    port = env["PREFECT_API_URL"].rpartition(":")[2].partition("/")[0]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: is_healthy(env["PREFECT_API_URL"]), seconds=_START_SECONDS, what="the server")
            yield process
        finally:
            ended(process)


def ended(process: subprocess.Popen[bytes], *, seconds: float = 60) -> int:
    """End a process, and return its exit code."""
    return end_process(process, seconds=seconds)


def wait_for(condition: Callable[[], object], *, seconds: float, what: str) -> None:
    """Wait until a condition is true, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.5)
