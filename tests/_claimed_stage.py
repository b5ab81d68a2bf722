"""A stage that records when it begins and ends; as a program, it runs for each line on standard input."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from storage.workspace import Workspace, open_artifact
from tasks.planning.batches import FrameRange, Job
from tasks.planning.stages import PROPAGATE
from tasks.stage import stage_task

__all__ = ["PlanOfOneStage", "compute", "run"]


@dataclass(frozen=True, kw_only=True)
class PlanOfOneStage:
    """What the stage needs of a plan."""

    workspace: str
    log: Path
    seconds: float = 0
    digest: str = "d"
    intervals = ((0, 4),)

    def __getitem__(self, _: object) -> Any:
        ref = Workspace.open(self.workspace).ref(f"clips/c/{self.digest}/propagate", self.digest)
        return SimpleNamespace(ref=ref)


@stage_task(PROPAGATE)
def compute(job: Job) -> None:
    """Complete the artifact, or a part of it, in so many seconds."""
    plan: Any = job.plan
    _write(plan.log, "begin")
    time.sleep(plan.seconds)
    artifact = open_artifact(plan[PROPAGATE].ref)
    if job.part is None:
        artifact.complete()
    else:
        artifact.complete_part(job.part)
    _write(plan.log, "end")


def run(plan: PlanOfOneStage, frames: FrameRange | None = None) -> list[str]:
    made: Any = plan
    return compute.task.fn((Job(plan=made, frames=frames),))


def _write(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(f"{line}\n")


if __name__ == "__main__":
    for line in sys.stdin:  # workspace, digest, log, seconds
        where, name, path, duration = line.split()
        run(PlanOfOneStage(workspace=where, digest=name, log=Path(path), seconds=float(duration)))
