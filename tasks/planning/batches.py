"""Batches: how much of a stage one task computes, so that a clip has few tasks, however long it is.

Each shot is computed and stored by itself, and a long shot is propagated in stretches of frames, one shard each. A
task takes several shots or stretches in a row: half a minute of work, or more where a clip would have too many tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from storage.reference import ArtifactRef
from tasks.planning.outline import EditOutline
from tasks.planning.plan import EditPlan, joined
from tasks.planning.stages import StageSettings, StageSpec

__all__ = [
    "SHARD_BYTES",
    "SHARD_ROWS",
    "Batch",
    "Batching",
    "FrameRange",
    "Job",
    "clip_batches",
    "shot_batches",
    "stretch_batches",
    "stretch_rows",
]

FrameRange = tuple[int, int]
"""First and last frame, both included."""

_PIXELS = 2_600_000  # propagated on one core in half a minute
_MOST_SHOT_BATCHES = 12  # for each of four stages: with the others, fewer than 100 tasks
_MOST_STRETCH_BATCHES = 36
SHARD_ROWS = 32
"""Frames, flows and other rows of an array that make one stored object, where they do not exceed `SHARD_BYTES`."""
SHARD_BYTES = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is computed and stored at once: a stage of a clip or of a shot, or of a stretch of its frames."""

    plan: EditPlan
    frames: FrameRange | None = None

    @property
    def part(self) -> str | None:
        """Name of the stretch among the finished parts of the artifact; None for the whole artifact."""
        return None if self.frames is None else f"{self.frames[0]:06d}-{self.frames[1]:06d}"

    def name(self, spec: StageSpec[StageSettings]) -> str:
        """Return the path of what is computed."""
        path = self.plan[spec].ref.path
        return path if self.part is None else f"{path}/{self.part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The jobs of one task."""

    jobs: tuple[Job, ...]

    @property
    def frames(self) -> range:
        """The frames of the clip that the jobs belong to."""
        return range(self.jobs[0].plan.frames.start, self.jobs[-1].plan.frames.stop)

    @property
    def outline(self) -> EditOutline:
        """The outline of the shots that the jobs belong to."""
        plans = {job.plan.frames: job.plan for job in self.jobs}
        return joined(tuple(plans.values()))

    def refs(self, spec: StageSpec[StageSettings]) -> tuple[ArtifactRef, ...]:
        """Return the artifacts that the jobs write."""
        return tuple(dict.fromkeys(job.plan[spec].ref for job in self.jobs))


Batching: TypeAlias = Callable[[EditPlan], tuple[Batch, ...]]


def clip_batches(plan: EditPlan) -> tuple[Batch, ...]:
    """Return one batch: the clip."""
    return (Batch(jobs=(Job(plan=plan),)),)


def shot_batches(plan: EditPlan) -> tuple[Batch, ...]:
    """Return batches of whole shots."""
    jobs = [Job(plan=shot) for shot in plan.shots]
    return tuple(_batches(jobs, plan, most=_MOST_SHOT_BATCHES))


def stretch_batches(plan: EditPlan) -> tuple[Batch, ...]:
    """Return batches of the stretches of frames between keyframes that make up the shards of propagated frames."""
    jobs = [Job(plan=shot, frames=stretch) for shot in plan.shots for stretch in _stretches(shot)]
    return tuple(_batches(jobs, plan, most=_MOST_STRETCH_BATCHES))


def stretch_rows(plan: EditPlan) -> int:
    """Return how many propagated frames one shard contains: those of one interval at least."""
    height, width = plan.size
    interval = plan.request.keyframe_interval
    frames = min(SHARD_ROWS, SHARD_BYTES // (3 * height * width))
    return interval * max(1, frames // interval)


def _stretches(shot: EditPlan) -> Iterator[FrameRange]:
    count = stretch_rows(shot) // shot.request.keyframe_interval
    for start in range(0, len(shot.intervals), count):
        intervals = shot.intervals[start : start + count]
        yield intervals[0][0], intervals[-1][1]


def _batches(jobs: Iterable[Job], plan: EditPlan, *, most: int) -> Iterator[Batch]:
    """Yield jobs in a row, each time until they have half a minute of work and their fraction of the clip."""
    least = max(_PIXELS / math.prod(plan.size), len(plan.frames) / most)
    collected: list[Job] = []
    frames = 0
    for job in jobs:
        first, last = job.frames or (job.plan.frames[0], job.plan.frames[-1])
        collected.append(job)
        frames += last - first + 1
        if frames >= least:
            yield Batch(jobs=tuple(collected))
            collected, frames = [], 0
    if collected:
        yield Batch(jobs=tuple(collected))
