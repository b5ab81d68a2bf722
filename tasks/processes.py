"""Programs that a command starts for itself on this machine: free ports, a plain environment, and an orderly end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import create_server

__all__ = ["changed_environment", "end_process", "free_ports", "plain_environment"]

_ROOT = str(Path(__file__).parents[1])


def free_ports(count: int) -> list[int]:
    """Return different ports of loopback that nothing listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


def plain_environment(*without: str) -> dict[str, str]:
    """Return this process's environment without the settings of this project and of a person's Prefect.

    The programs that are started import this project from where it is now, and report nothing to Prefect's makers.

    Args:
        without: prefixes of further variables that are left out.
    """
    left_out = ("WAVE_", "PREFECT_", *without)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, (_ROOT, kept.get("PYTHONPATH")))),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


@contextmanager
def changed_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process's environment in this context."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def end_process(process: subprocess.Popen[bytes], *, seconds: float = 30) -> int:
    """Ask a process to end, kill it if it has not within so many seconds, and return its exit code."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
