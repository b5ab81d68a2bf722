"""Flow: optical flow and warp masks of the keyframe pairs, and flow between neighbouring frames."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.artifact import Artifact
from storage.workspace import open_artifact
from tasks.artifacts import shard_rows, stream_frames
from tasks.models.flow_estimators import load_flow
from tasks.planning.batches import SHARD_BYTES, SHARD_ROWS, Job
from tasks.planning.plan import EditPlan
from tasks.planning.stages import DECODE, FRAME_FLOW, KEYFRAME_FLOW
from tasks.progress import stage_progress
from tasks.stage import measured, stage_task
from wave_ops.finite import check_finite
from wave_ops.flow import compose_flows, refine_flow
from wave_ops.masks import WarpMaskSettings, warp_mask
from wave_ops.resize import resize_frames, to_images

__all__ = ["estimate_frame_flow", "estimate_keyframe_flow", "require_flow"]

FLOWS = ("to_prev", "to_cur")
MASKS = ("mask_cur", "mask_prev")

_INTERVALS_KEPT: Final = 8
"""Composed flows in memory; the pairs of a shuffle lie at most a few keyframes apart, and come in their order."""


@stage_task(KEYFRAME_FLOW)
def estimate_keyframe_flow(job: Job) -> None:
    """Estimate both directions, and both warp masks, of every keyframe pair that a shuffle can make neighbours.

    With DIS the flow from frame to frame is composed, and refined between the two keyframes.
    """
    plan, settings = job.plan, job.plan[KEYFRAME_FLOW].settings
    artifact, source = open_artifact(plan[KEYFRAME_FLOW].ref), open_artifact(plan[DECODE].ref)
    pairs = [(plan.keyframes[first], plan.keyframes[second]) for first, second in plan.pairs]
    size = settings.size
    with measured() as cost:
        pending = _Pending(artifact, len(pairs), size, masks=True)
        frames = source.row_reader("frames", keep_bytes=2 * SHARD_BYTES)
        if settings.keyframes == "composed":
            composed = _ComposedFlow(open_artifact(plan[FRAME_FLOW].ref), plan)
        else:
            estimate = load_flow(plan.inputs.flow, device=plan.execution.device)
        with stage_progress(plan[KEYFRAME_FLOW], total=len(pairs), done=pending.stored) as progress:
            for i, pair in enumerate(pairs[pending.stored :], start=pending.stored):
                first, second = (resize_frames(frames[index][None], size)[0] for index in pair)
                if settings.keyframes == "composed":
                    flows = refine_flow(first, second, composed(*plan.pairs[i]))
                else:
                    flows = estimate(first, second)
                pending.append(flows, _masks(first, second, *flows, settings=settings.mask))
                progress.report(i + 1)
        pending.flush()
        artifact.complete({"pairs": pairs, "size": size, **cost()})


@stage_task(FRAME_FLOW)
def estimate_frame_flow(job: Job) -> None:
    """Estimate both directions between the neighbouring frames of a shot."""
    plan = job.plan
    artifact, source = open_artifact(plan[FRAME_FLOW].ref), open_artifact(plan[DECODE].ref)
    size, count = plan[FRAME_FLOW].settings.size, len(plan.frames) - 1
    with measured() as cost:
        pending = _Pending(artifact, count, size, masks=False)
        estimate = load_flow(plan.inputs.flow, device=plan.execution.device)
        with stage_progress(plan[FRAME_FLOW], total=count, done=pending.stored) as progress:
            neighbours = pairwise(stream_frames(source, plan.frames[pending.stored :], size=size))
            for i, (prev, cur) in enumerate(neighbours, start=pending.stored):
                pending.append(estimate(prev, cur))
                progress.report(i + 1)
        pending.flush()
        artifact.complete({"size": size, **cost()})


def require_flow(artifact: Artifact, count: int, size: tuple[int, int], *, masks: bool) -> tuple[str, ...]:
    """Create the arrays of the flows, and of the masks, of pairs, or reopen them; return their names.

    All have shards of the same pairs.
    """
    flow, mask = (count, 2, *size), (count, *size)
    rows = shard_rows(flow, "float16", most=2 * SHARD_ROWS)
    for name in FLOWS:
        artifact.require_array(
            name,
            shape=flow,
            chunks=(1, *flow[1:]),
            dtype="float16",
            shard_rows=rows,
            dimension_names=("pair", "axis", "height", "width"),
        )
    for name in MASKS if masks else ():
        artifact.require_array(
            name,
            shape=mask,
            chunks=(1, *size),
            dtype="bool",
            shard_rows=rows,
            dimension_names=("pair", "height", "width"),
        )
    return (*FLOWS, *(MASKS if masks else ()))


class _Pending:
    """What is yet to be written of the flows and masks of pairs."""

    def __init__(self, artifact: Artifact, count: int, size: tuple[int, int], *, masks: bool) -> None:
        arrays = require_flow(artifact, count, size, masks=masks)
        self.stored = min(artifact.readable_prefix(name) for name in arrays)
        """How many pairs are stored in all arrays; what only some of them have is computed again."""
        self._writers = [artifact.row_writer(name, self.stored) for name in arrays]

    def append(self, *values: tuple[NDArray[np.generic], ...]) -> None:
        """Add the flows, and the masks, of one pair. Raises NonFiniteError for a flow that is NaN or infinite."""
        for writer, value in zip(self._writers, (value for group in values for value in group), strict=True):
            stored = value.astype(np.float16) if value.dtype == np.float32 else value
            if stored.dtype == np.float16:
                check_finite(stored, "optical flows")
            writer.append(stored)

    def flush(self) -> None:
        for writer in self._writers:
            writer.flush()


class _ComposedFlow:
    """The flow between keyframes of a shot, composed of the flow between its neighbouring frames."""

    def __init__(self, frame_flow: Artifact, plan: EditPlan) -> None:
        self._intervals, self._start = plan.intervals, plan.frames.start
        self._readers = [frame_flow.row_reader(name) for name in FLOWS]
        self._at = lru_cache(maxsize=_INTERVALS_KEPT)(self._interval)

    def __call__(self, first: int, second: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (flow_to_prev, flow_to_cur) between two keyframes, by their places."""
        intervals = [self._at(index) for index in range(first, second)]
        to_prev = compose_flows([back for back, _ in reversed(intervals)])
        to_cur = compose_flows([onward for _, onward in intervals])
        return to_prev.numpy(), to_cur.numpy()

    def _interval(self, index: int) -> tuple[Tensor, Tensor]:
        pairs = range(*(frame - self._start for frame in self._intervals[index]))
        back, onward = ([torch.from_numpy(reader[i]).float() for i in pairs] for reader in self._readers)
        return compose_flows(back[::-1]), compose_flows(onward)


def _masks(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    to_prev: NDArray[np.float32],
    to_cur: NDArray[np.float32],
    *,
    settings: WarpMaskSettings | None,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Compute the warp mask on the second frame's grid and, with the roles exchanged, on the first's."""
    images = to_images(np.stack([first, second]))
    flows = [torch.from_numpy(flow)[None] for flow in (to_prev, to_cur)]
    on_second = warp_mask(images[:1], images[1:], flows[0], flows[1], settings=settings)
    on_first = warp_mask(images[1:], images[:1], flows[1], flows[0], settings=settings)
    return on_second[0].numpy(), on_first[0].numpy()
