"""A PostgreSQL server on a loopback port, with its data in a folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.errors import TaskInputError
from tasks.processes import end_process, free_ports

__all__ = ["find_postgres", "postgres"]

_DEBIAN = Path("/usr/lib/postgresql")
_USER = "postgres"
_SECONDS = 120


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest version that is installed; None without one."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = [path.parent for path in _DEBIAN.glob("*/bin/initdb")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


@contextmanager
def postgres(binaries: Path, folder: Path) -> Iterator[str]:
    """Run a server with its data in a folder, and yield the URL of a database.

    PostgreSQL refuses to run as root: then it runs as the user `postgres`, who must be able to enter the folder.

    Raises:
        TaskInputError: if it does not start.
    """
    data, log = folder / "data", folder / "postgres.log"
    (port,) = free_ports(1)
    folder.mkdir(parents=True, exist_ok=True)
    user = _unprivileged(folder)
    with log.open("ab") as output:
        options: dict[str, Any] = {"stdout": output, "stderr": subprocess.STDOUT, "cwd": folder, **user}
        made: list[str | Path] = [
            binaries / "initdb",
            "--pgdata",
            data,
            "--username",
            "wave",
            "--auth",
            "trust",
            "--no-sync",
        ]
        if subprocess.run(made, **options, check=False).returncode != 0:  # noqa: S603  (PostgreSQL's own program)
            raise TaskInputError(f"PostgreSQL could not create a database: {_last_line(log)}.")
        address = ("-h", "127.0.0.1", "-p", str(port), "-k", folder)
        process = subprocess.Popen(  # noqa: S603  (the same)
            [binaries / "postgres", "-D", data, *address, "-c", "max_connections=200", "-c", "fsync=off"], **options
        )
        try:
            _wait_until_ready(binaries, port, process, log)
            yield f"postgresql://wave@127.0.0.1:{port}/postgres"
        finally:
            end_process(process)


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Return the options that start a process as a user who is not root."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(_USER)
    except KeyError:
        raise TaskInputError(f"PostgreSQL does not run as root, and the user {_USER} does not exist.") from None
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _wait_until_ready(binaries: Path, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _SECONDS
    command: list[str | Path] = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    while process.poll() is None and time.monotonic() < end:
        if subprocess.run(command, check=False).returncode == 0:  # noqa: S603  (PostgreSQL's own program)
            return
        time.sleep(0.2)
    raise TaskInputError(f"PostgreSQL did not start: {_last_line(log)}.")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else "it wrote no message"
