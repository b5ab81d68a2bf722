"""Artifacts with rows that their digest determines; as a program, it writes one for each line on standard input."""

from __future__ import annotations

import json
import sys

import numpy as np
import numpy.typing as npt

from storage.artifact import Artifact
from storage.workspace import Workspace

__all__ = ["ROWS", "opened", "values", "write_rows"]

ROWS, SHARD = 4, 3


def values(digest: str) -> npt.NDArray[np.float32]:
    return (np.arange(ROWS * 2, dtype=np.float32) + 100 * sum(map(ord, digest))).reshape(ROWS, 2)


def opened(workspace: Workspace, path: str, digest: str) -> Artifact:
    return workspace.artifact(workspace.ref(path, digest))


def write_rows(workspace: Workspace, path: str, digest: str, *, shards: int, complete: bool) -> int:
    """Do what a stage does: go on after the rows that are there, and complete what is whole.

    Returns:
        How many rows were there; -1 if the artifact is complete.
    """
    artifact = opened(workspace, path, digest)
    if artifact.is_complete():
        return -1
    artifact.require_array("rows", shape=(ROWS, 2), chunks=(1, 2), shard_rows=SHARD, dtype="float32")
    found = artifact.readable_prefix("rows")
    for start in range(found, min(ROWS, SHARD * shards), SHARD):
        artifact.write_region("rows", start, values(digest)[start : start + SHARD])
    if complete and artifact.readable_prefix("rows") == ROWS:
        artifact.write_json("facts.json", digest)
        artifact.complete({"digest": digest})
    return found


if __name__ == "__main__":
    for line in sys.stdin:
        url, path, digest, shards, complete = json.loads(line)
        count = write_rows(Workspace.open(url), path, digest, shards=shards, complete=complete)
        sys.stdout.write(f"{count}\n")
        sys.stdout.flush()
