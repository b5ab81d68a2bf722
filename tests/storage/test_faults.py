"""Writes that fail on purpose, of files and of arrays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storage.errors import UnreachableError
from storage.faults import Effect, Faults
from storage.workspace import Workspace
from tests._artifacts import artifact_of

ROOT = Path(__file__).parents[2]
VALUES = np.arange(300, dtype=np.float32).reshape(1, 300)
Write = Callable[[Workspace], None]


def write_array(workspace: Workspace) -> None:
    artifact_of(workspace).write_region("rows", 0, VALUES)


def write_file(workspace: Workspace) -> None:
    workspace.files.write("clips/c/stage/file", VALUES.tobytes())


def write_output(workspace: Workspace) -> None:
    with workspace.files.local_output("clips/c/stage/file") as path:
        path.write_bytes(VALUES.tobytes())


def opened(workspace: Workspace) -> Workspace:
    return Workspace.open(workspace.url)


@pytest.mark.parametrize("write", [write_array, write_file, write_output])
@pytest.mark.parametrize(("effect", "fraction"), [(None, 1.0), ("error", 0.0), ("half", 0.5), ("lost", 1.0)])
def test_of_a_write_that_fails_nothing_half_or_everything_is_there(
    effect: Effect | None, fraction: float, write: Write, workspace: Workspace
) -> None:
    artifact_of(workspace).require_array("rows", shape=(1, 300), chunks=(1, 300), dtype="float32")
    key = "clips/c/stage/rows/c/0/0" if write is write_array else "clips/c/stage/file"
    write(workspace)
    whole = workspace.files.read(key)
    workspace.files.delete([key])
    faults = Faults(choose=lambda number, _: effect if number == 0 else None)
    with faults.injected():
        if effect is None:
            write(opened(workspace))
        else:
            with pytest.raises(UnreachableError if effect == "lost" else OSError, match="made to fail"):
                write(opened(workspace))
    assert faults.keys == [key]
    assert workspace.files.read_many([key]).get(key, b"") == whole[: int(len(whole) * fraction)]
    write(opened(workspace))  # outside, nothing fails and nothing is counted
    assert faults.keys == [key]


def test_writes_are_counted_across_workspaces_and_the_keys_are_those_written(tmp_path: Path) -> None:
    faults = Faults()
    with faults.injected():
        for name in "ab":
            artifact = artifact_of(Workspace.open(tmp_path / name))
            artifact.require_array("rows", shape=(1, 300), chunks=(1, 300), dtype="float32")
            write_array(Workspace.open(tmp_path / name))
    own = ["zarr.json", "clips/zarr.json", "clips/c/zarr.json", "clips/c/stage/zarr.json"]
    assert faults.keys == [*own, "clips/c/stage/rows/zarr.json", "clips/c/stage/rows/c/0/0"] * 2


KILLED = """
import sys
from storage.faults import Faults
from storage.workspace import Workspace
with Faults(choose=lambda number, key: "kill" if key == "c" else None).injected():
    for key in "abcd":
        Workspace.open(sys.argv[1]).files.write(key, b"")
"""


def test_a_write_that_kills_ends_the_process_before_it(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
