"""Propagate: from the edited keyframes to every frame, one task per interval between keyframes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.errors import WorkspaceError
from storage.reference import ArtifactRef
from storage.workspace import open_artifact
from tasks.artifacts import frames_at
from tasks.models.devices import choose_device
from tasks.planning.plan import EditPlan
from tasks.planning.stages import PROPAGATE
from tasks.progress import stage_progress
from tasks.stage import FrameRange, measured, part_name, stage_task
from wave_ops.propagation import propagate_interval
from wave_ops.warp import resize_flow

__all__ = ["begin_propagation", "finish_propagation", "propagate_frames"]


def begin_propagation(plan: EditPlan) -> None:
    """Create the array that the intervals' tasks fill in parallel, or reopen it."""
    artifact = open_artifact(plan[PROPAGATE].ref)
    if not artifact.is_complete():
        artifact.require_array(
            "frames",
            shape=(plan.clip.frame_count, *plan.size, 3),
            chunks=(1, *plan.size, 3),
            dtype="uint8",
            dimension_names=("time", "height", "width", "channel"),
        )


@stage_task(PROPAGATE)
def propagate_frames(
    plan: EditPlan, clip: ArtifactRef, flow: ArtifactRef, keyframes: ArtifactRef, interval: FrameRange
) -> ArtifactRef:
    """Synthesise the frames of one interval between two keyframes.

    The task writes the interval's frames from the first up to, but not including, the last, which belongs to the next
    interval; at the end of a shot it writes the last one too.
    """
    artifact, part = open_artifact(plan[PROPAGATE].ref), part_name(interval)
    if artifact.is_complete() or artifact.has_part(part):
        return plan[PROPAGATE].ref
    first, last = interval
    device = None
    if plan.execution.propagation == "torch":
        device = choose_device("cuda", setting="WAVE_PROPAGATION_DEVICE")
    with measured() as cost, stage_progress(plan[PROPAGATE], total=last - first + 1, part=part) as progress:
        edited = open_artifact(keyframes)
        ends = [_keyframe(edited, plan.keyframes.index(frame)) for frame in interval]
        to_prev, to_cur = _flows(open_artifact(flow), plan, interval)
        frames = propagate_interval(
            frames_at(open_artifact(clip), range(first, last + 1), size=plan.size),
            first=ends[0],
            last=ends[1] if last > first else None,
            flows_to_prev=to_prev,
            flows_to_cur=to_cur,
            settings=plan[PROPAGATE].settings.propagation,
            device=device,
            callback=lambda done, total: progress.report(round((last - first + 1) * done / max(total, 1))),
        )
        own = frames if last in plan.shot_ends else frames[:-1]
        artifact.write_region("frames", first, own)
        artifact.complete_part(part, cost(), regions={"frames": (first, first + len(own))})
    return plan[PROPAGATE].ref


@stage_task(PROPAGATE, what=", all frames")
def finish_propagation(plan: EditPlan, intervals: list[ArtifactRef]) -> ArtifactRef:
    """Complete the frames once all intervals have been synthesised."""
    artifact = open_artifact(plan[PROPAGATE].ref)
    if artifact.is_complete():
        return plan[PROPAGATE].ref
    names = [part_name(interval) for interval in plan.intervals]
    missing = set(names) - artifact.completed_parts()
    if missing:
        raise WorkspaceError(f"the frames {min(missing)} of {plan.clip.name} are missing: run the edit again")
    parts = artifact.parts_metadata(names).values()
    cost = {
        "seconds": round(sum(part["seconds"] for part in parts), 2),
        "peak_memory_mib": max(part["peak_memory_mib"] for part in parts),
    }
    return artifact.complete({"keyframes": plan.keyframes, "intervals": len(parts)} | cost)


def _keyframe(edited: Artifact, index: int) -> NDArray[np.uint8]:
    frame: NDArray[np.uint8] = edited.read_region("frames", index, index + 1)[0]
    return frame


def _flows(flow: Artifact, plan: EditPlan, interval: FrameRange) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read an interval's flows in both directions, at the working size."""
    first, last = interval
    to_prev, to_cur = (
        resize_flow(torch.from_numpy(flow.read_region(name, first, last)).float(), plan.size).numpy()
        for name in ("to_prev", "to_cur")
    )
    return to_prev, to_cur
