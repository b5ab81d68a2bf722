"""Processes killed while they write, and processes that write the same artifact at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from storage.workspace import Workspace

ROOT = Path(__file__).parents[2]

WRITER = """
import sys
import numpy as np
from storage.workspace import Workspace
workspace = Workspace.open(sys.argv[1])
artifact = workspace.artifact(workspace.ref("clip/stage", "d"))
artifact.require_array("rows", shape=(60, 64, 64), chunks=(1, 64, 64), dtype="float32")
for row in range(artifact.readable_prefix("rows"), 60):
    artifact.write_region("rows", row, np.random.default_rng(row).random((1, 64, 64), np.float32))
    print(row, flush=True)
print(artifact.complete({"rows": 60}).digest)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def kill_after(process: subprocess.Popen[str], rows: int) -> int:
    """Kill the writer shortly after it reports its n-th row, and return the last row that it reported."""
    assert process.stdout is not None
    last = -1
    for _ in range(rows):
        last = int(process.stdout.readline())
    time.sleep(0.003)
    process.send_signal(signal.SIGKILL)
    rest = [line for line in process.communicate()[0].splitlines() if line]
    return int(rest[-1]) if rest else last


def test_every_row_that_was_written_before_a_kill_survives(tmp_path: Path) -> None:
    reported = kill_after(start(tmp_path), 20)
    workspace = Workspace.open(tmp_path)
    artifact = workspace.artifact(workspace.ref("clip/stage", "d"))
    assert not artifact.is_complete()
    prefix = artifact.readable_prefix("rows")
    assert reported + 1 <= prefix < 60
    for row, values in enumerate(artifact.read_region("rows", 0, prefix)):
        np.testing.assert_array_equal(values, np.random.default_rng(row).random((64, 64), np.float32))


def test_two_processes_can_write_and_complete_the_same_artifact(tmp_path: Path) -> None:
    writers = [start(tmp_path), start(tmp_path)]
    assert [writer.communicate()[0].split()[-1] for writer in writers] == ["d", "d"]
    assert [writer.returncode for writer in writers] == [0, 0]
    workspace = Workspace.open(tmp_path)
    artifact = workspace.artifact(workspace.ref("clip/stage", "d"))
    assert artifact.is_complete()
    assert artifact.readable_prefix("rows") == 60
