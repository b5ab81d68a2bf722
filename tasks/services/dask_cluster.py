"""A Dask cluster on loopback: a scheduler, and workers in processes of their own with different resources."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

__all__ = ["cluster"]

ROOT = Path(__file__).parents[2]
_SECONDS = 240


@contextmanager
def cluster(
    folder: Path, workers: Sequence[tuple[str, Sequence[str]]], *, environment: Mapping[str, str]
) -> Iterator[str]:
    """Start a cluster and yield the scheduler's address.

    Args:
        folder: for logs and the workers' files.
        workers: the resources of each worker, such as "GPU=1", and its further options.
        environment: variables of all processes, in addition to those of this one.
    """
    found = folder / "scheduler.json"
    with ExitStack() as stack:

        def start(kind: str, *options: str, log: str) -> None:
            command = [sys.executable, "-m", "distributed.cli." + kind, *options, "--scheduler-file", str(found)]
            process = subprocess.Popen(  # noqa: S603  (this interpreter)
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdout=stack.enter_context((folder / log).open("wb")),
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)

        start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show", log="scheduler")
        for number, (resources, options) in enumerate(workers):
            common = ("--no-nanny", "--no-dashboard", "--nthreads", "2", "--local-directory", str(folder))
            start("dask_worker", "--resources", resources, *common, *options, log=f"worker{number}-{resources}")
        yield _address(found, len(workers))


def _address(found: Path, workers: int) -> str:
    """Return the scheduler's address once all workers have joined it."""
    from distributed import Client  # noqa: PLC0415  (it takes seconds)

    end = time.monotonic() + _SECONDS
    while not found.exists() or not found.read_text():
        if time.monotonic() > end:
            raise RuntimeError(f"the scheduler of Dask did not start within {_SECONDS} s")
        time.sleep(0.1)
    address: str = json.loads(found.read_text())["address"]
    with Client(address, set_as_default=False, timeout=_SECONDS) as client:
        client.wait_for_workers(workers, timeout=_SECONDS)
    return address
