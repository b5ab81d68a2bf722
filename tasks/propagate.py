"""Propagate: from the edited keyframes to every frame, in stretches of the intervals between keyframes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.errors import WorkspaceError
from storage.workspace import open_artifact
from tasks.artifacts import frames_at, require_pictures
from tasks.models.devices import choose_device
from tasks.planning.batches import Batch, FrameRange, Job, stretch_batches, stretch_rows
from tasks.planning.plan import EditPlan
from tasks.planning.stages import DECODE, EDIT, FRAME_FLOW, PROPAGATE
from tasks.progress import StageProgress, stage_progress
from tasks.stage import measured, stage_task
from wave_ops.propagation import propagate_interval
from wave_ops.warp import resize_flow

__all__ = ["begin_propagation", "finish_propagation", "propagate_frames", "require_frames"]


def begin_propagation(plan: EditPlan) -> None:
    """Create the arrays of shots that several tasks fill in parallel, or reopen them."""
    for shot in plan.shots:
        if len(shot.frames) > stretch_rows(shot):
            artifact = open_artifact(shot[PROPAGATE].ref)
            if not artifact.is_complete():
                require_frames(artifact, shot)


def require_frames(artifact: Artifact, plan: EditPlan) -> None:
    """Create the array of the frames of a shot, or reopen it."""
    count = len(plan.frames)
    require_pictures(artifact, (count, *plan.size, 3), axis="time", rows=min(stretch_rows(plan), count))


@stage_task(PROPAGATE, batches=stretch_batches)
def propagate_frames(job: Job) -> None:
    """Synthesise the frames of a stretch of a shot, interval by interval.

    The frames are written from the first up to, but not including, the last, which belongs to the next stretch; at the
    end of the shot the last one too.
    """
    plan, part = job.plan, job.part
    if job.frames is None or part is None:
        raise ValueError("frames are propagated by stretches")
    artifact, (first, last) = open_artifact(plan[PROPAGATE].ref), job.frames
    require_frames(artifact, plan)
    inputs = _Inputs(plan, job.frames)
    intervals = [interval for interval in plan.intervals if first <= interval[0] and interval[1] <= last]
    with measured() as cost, stage_progress(plan[PROPAGATE], total=_count(plan, (first, last)), part=part) as progress:
        frames = np.concatenate([_interval(inputs, interval, progress) for interval in intervals])
        start = first - plan.frames.start
        artifact.write_region("frames", start, frames)
        artifact.complete_part(part, cost(), regions={"frames": (start, start + len(frames))})


class _Inputs:
    """What a stretch is propagated from: source frames, edited keyframes and flow, each read once."""

    def __init__(self, plan: EditPlan, stretch: FrameRange) -> None:
        self.plan, self.first = plan, stretch[0]
        torch_is_used = plan.execution.propagation == "torch"
        self.device = choose_device("cuda", setting="WAVE_PROPAGATION_DEVICE") if torch_is_used else None
        frames = range(stretch[0], stretch[1] + 1)
        self._source = frames_at(open_artifact(plan[DECODE].ref), frames, size=plan.size)
        self._keyframes = open_artifact(plan[EDIT].ref).row_reader("frames")
        flow, start = open_artifact(plan[FRAME_FLOW].ref), plan.frames.start
        self._flows = [flow.read_region(name, *(each - start for each in stretch)) for name in ("to_prev", "to_cur")]

    def source(self, interval: FrameRange) -> NDArray[np.uint8]:
        return self._source[interval[0] - self.first : interval[1] - self.first + 1]

    def keyframe(self, frame: int) -> NDArray[np.uint8]:
        return self._keyframes[self.plan.keyframes.index(frame)]

    def flows(self, interval: FrameRange) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return an interval's flows in both directions, at the working size."""
        rows = slice(*(frame - self.first for frame in interval))
        to_prev, to_cur = (
            resize_flow(torch.from_numpy(flow[rows]).float(), self.plan.size).numpy() for flow in self._flows
        )
        return to_prev, to_cur


def _count(plan: EditPlan, frames: FrameRange) -> int:
    """Return how many frames a stretch or an interval stores: the last one begins the next, but at the shot's end."""
    first, last = frames
    return last - first + (last == plan.frames[-1])


def _interval(inputs: _Inputs, interval: FrameRange, progress: StageProgress) -> NDArray[np.uint8]:
    """Return the frames of an interval but the last, which is returned only at the end of the shot."""
    plan, (first, last) = inputs.plan, interval
    to_prev, to_cur = inputs.flows(interval)
    done, count = first - inputs.first, _count(plan, interval)
    frames = propagate_interval(
        inputs.source(interval),
        first=inputs.keyframe(first),
        last=inputs.keyframe(last) if last > first else None,
        flows_to_prev=to_prev,
        flows_to_cur=to_cur,
        settings=plan[PROPAGATE].settings.propagation,
        device=inputs.device,
        callback=lambda part, whole: progress.report(done + round(count * part / max(whole, 1))),
    )
    return frames[:count]


@stage_task(PROPAGATE, what=", all frames", batches=lambda plan: (Batch(jobs=tuple(map(_whole, plan.shots))),))
def finish_propagation(job: Job) -> None:
    """Complete the frames of a shot once all its stretches have been synthesised."""
    plan = job.plan
    artifact = open_artifact(plan[PROPAGATE].ref)
    names = [str(stretch.part) for batch in stretch_batches(plan) for stretch in batch.jobs]
    missing = set(names) - artifact.completed_parts()
    if missing:
        raise WorkspaceError(f"the frames {min(missing)} of {plan.clip.name} are missing: run the edit again")
    parts = artifact.parts_metadata(names).values()
    cost = {
        "seconds": round(sum(part["seconds"] for part in parts), 2),
        "peak_memory_mib": max(part["peak_memory_mib"] for part in parts),
    }
    artifact.complete({"keyframes": plan.keyframes, "intervals": len(plan.intervals)} | cost)


def _whole(shot: EditPlan) -> Job:
    return Job(plan=shot)
