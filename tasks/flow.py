"""Flow: optical flow and warp masks of the keyframe pairs, and flow between neighbouring frames."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.reference import ArtifactRef
from storage.workspace import open_artifact
from tasks.artifacts import frames_at, stream_frames
from tasks.models.flow_estimators import load_flow
from tasks.planning.plan import EditPlan
from tasks.planning.stages import FRAME_FLOW, KEYFRAME_FLOW
from tasks.progress import stage_progress
from tasks.stage import measured, stage_task
from wave_ops.masks import warp_mask
from wave_ops.resize import to_images

__all__ = ["estimate_frame_flow", "estimate_keyframe_flow"]

FLOWS = ("to_prev", "to_cur")
MASKS = ("mask_cur", "mask_prev")


@stage_task(KEYFRAME_FLOW)
def estimate_keyframe_flow(plan: EditPlan, clip: ArtifactRef) -> ArtifactRef:
    """Estimate both directions, and both warp masks, of every keyframe pair that a shuffle can make neighbours."""
    artifact, source = open_artifact(plan[KEYFRAME_FLOW].ref), open_artifact(clip)
    if artifact.is_complete():
        return plan[KEYFRAME_FLOW].ref
    pairs = [(plan.keyframes[first], plan.keyframes[second]) for first, second in plan.pairs]
    size = plan[KEYFRAME_FLOW].settings.size
    with measured() as cost:
        done = _require_arrays(artifact, len(pairs), size, masks=True)
        estimate = load_flow(plan.inputs.flow, device=plan.execution.device)
        with stage_progress(plan[KEYFRAME_FLOW], total=len(pairs), done=done) as progress:
            for i, pair in enumerate(pairs[done:], start=done):
                first, second = frames_at(source, pair, size=size)
                flows = estimate(first, second)
                _write(artifact, i, FLOWS, flows)
                _write(artifact, i, MASKS, _masks(first, second, *flows))
                progress.report(i + 1)
        return artifact.complete({"pairs": pairs, "size": size, **cost()})


@stage_task(FRAME_FLOW)
def estimate_frame_flow(plan: EditPlan, clip: ArtifactRef) -> ArtifactRef:
    """Estimate both directions between neighbouring frames; across a cut the flow is left at zero."""
    artifact, source = open_artifact(plan[FRAME_FLOW].ref), open_artifact(clip)
    if artifact.is_complete():
        return plan[FRAME_FLOW].ref
    size, count = plan[FRAME_FLOW].settings.size, plan.clip.frame_count - 1
    cuts = set(plan.clip.cuts or ())
    with measured() as cost:
        done = _require_arrays(artifact, count, size, masks=False)
        estimate = load_flow(plan.inputs.flow, device=plan.execution.device)
        nothing = np.zeros((2, *size), np.float32)
        with stage_progress(plan[FRAME_FLOW], total=count, done=done) as progress:
            neighbours = pairwise(stream_frames(source, range(done, count + 1), size=size))
            for i, (prev, cur) in enumerate(neighbours, start=done):
                _write(artifact, i, FLOWS, (nothing, nothing) if i + 1 in cuts else estimate(prev, cur))
                progress.report(i + 1)
        return artifact.complete({"size": size, **cost()})


def _require_arrays(artifact: Artifact, count: int, size: tuple[int, int], *, masks: bool) -> int:
    """Create the arrays, one chunk per pair, or reopen them; return how many pairs are stored."""
    for name in FLOWS:
        artifact.require_array(
            name,
            shape=(count, 2, *size),
            chunks=(1, 2, *size),
            dtype="float16",
            dimension_names=("pair", "axis", "height", "width"),
        )
    for name in MASKS if masks else ():
        artifact.require_array(
            name, shape=(count, *size), chunks=(1, *size), dtype="bool", dimension_names=("pair", "height", "width")
        )
    return min(artifact.readable_prefix(name) for name in (*FLOWS, *(MASKS if masks else ())))


def _write(artifact: Artifact, i: int, names: tuple[str, str], values: tuple[NDArray[np.generic], ...]) -> None:
    for name, value in zip(names, values, strict=True):
        half = value.astype(np.float16) if value.dtype == np.float32 else value
        artifact.write_region(name, i, half[None])


def _masks(
    first: NDArray[np.uint8], second: NDArray[np.uint8], to_prev: NDArray[np.float32], to_cur: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Compute the warp mask on the second frame's grid and, with the roles exchanged, on the first's."""
    images = to_images(np.stack([first, second]))
    flows = [torch.from_numpy(flow)[None] for flow in (to_prev, to_cur)]
    on_second = warp_mask(images[:1], images[1:], flows[0], flows[1])
    on_first = warp_mask(images[1:], images[:1], flows[1], flows[0])
    return on_second[0].numpy(), on_first[0].numpy()
