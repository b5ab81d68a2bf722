"""SeaweedFS as an S3 store on loopback ports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

from tasks.processes import free_ports

__all__ = ["ACCESS", "counted_requests", "find_seaweed", "seaweed"]

ACCESS = {
    "AWS_ACCESS_KEY_ID": "wave",
    "AWS_SECRET_ACCESS_KEY": "wave-secret",  # of the server that is started here
    "AWS_REGION": "us-east-1",
}
_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)
_SECONDS = 90


def find_seaweed() -> str | None:
    """Return the path of `weed`, on PATH or from a package of this environment; None where it is not installed."""
    return shutil.which("weed", path=os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)]))


@contextmanager
def seaweed(binary: str, folder: Path, *, metrics_port: int | None = None) -> Iterator[str]:
    """Run a server with its data in a folder, and yield the URL of its S3 endpoint.

    Args:
        binary: its program.
        folder: for its data and its log.
        metrics_port: where it answers with its counters; None for nowhere.
    """
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    command = [binary, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    command += [] if metrics_port is None else [f"-metricsPort={metrics_port}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=100"]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  (the program that was found)
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **ACCESS}
        )
        try:
            _wait_until_ready(ports["s3.port"], process)
            yield f"http://127.0.0.1:{ports['s3.port']}"
        finally:
            process.kill()  # a graceful stop takes more than ten seconds, and the data is not kept
            process.wait()


def counted_requests(metrics_port: int) -> Counter[str]:
    """Return how many requests the S3 endpoint has answered since it was started, by their kind: GET, PUT, LIST, ..."""
    with closing(HTTPConnection("127.0.0.1", metrics_port, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found: Counter[str] = Counter()
    for labels, number in re.findall(r"^SeaweedFS_s3_request_total{(.*)} (\S+)$", text, re.MULTILINE):
        kind = re.search(r'type="(\w+)"', labels)
        found[kind[1] if kind else ""] += int(float(number))
    return found


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError), closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/")
            connection.getresponse()
            return
        time.sleep(0.2)
    raise RuntimeError(f"SeaweedFS did not start within {_SECONDS} s: {process.args!r}")
