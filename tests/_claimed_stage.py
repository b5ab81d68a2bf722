"""A stage that records when it begins and ends; as a program, it runs for each line on standard input."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from storage.reference import ArtifactRef
from storage.workspace import Workspace, open_artifact
from tasks.planning.stages import PROPAGATE
from tasks.stage import FrameRange, part_name, stage_task

__all__ = ["compute", "plan_of"]


def plan_of(workspace: str, digest: str = "d") -> Any:
    """Return what the stage needs of a plan."""
    ref = Workspace.open(workspace).ref(f"clips/c/{digest}/propagate", digest)
    return _Plan({PROPAGATE: SimpleNamespace(ref=ref)})


class _Plan(dict[Any, Any]):
    intervals = ((0, 4),)


@stage_task(PROPAGATE)
def compute(plan: Any, log: Path, seconds: float, interval: FrameRange | None = None) -> ArtifactRef:
    """Complete the artifact, or a part of it, in so many seconds, unless it is complete."""
    artifact = open_artifact(plan[PROPAGATE].ref)
    if artifact.is_complete() or (interval is not None and artifact.has_part(part_name(interval))):
        return artifact.ref()
    _write(log, "begin")
    time.sleep(seconds)
    if interval is None:
        artifact.complete()
    else:
        artifact.complete_part(part_name(interval))
    _write(log, "end")
    return artifact.ref()


def _write(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(f"{line}\n")


if __name__ == "__main__":
    for line in sys.stdin:  # workspace, digest, log, seconds
        where, name, path, duration = line.split()
        compute.task.fn(plan_of(where, name), Path(path), float(duration))
