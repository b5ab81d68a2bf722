"""Invert: compute the keyframes' latents at every noise level."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from storage.artifact import Artifact
from storage.reference import ArtifactRef
from storage.workspace import open_artifact
from tasks.artifacts import frames_at, require_latents, stored_warps
from tasks.models.devices import stage_device
from tasks.models.loading import loaded_model
from tasks.planning.plan import EditPlan
from tasks.planning.stages import INVERT
from tasks.progress import stage_progress
from tasks.stage import measured, stage_task
from wave_ops.diffusion import StableDiffusion, encode_frames
from wave_ops.inversion import InversionSettings, invert, step_orders

__all__ = ["invert_keyframes"]


@stage_task(INVERT)
def invert_keyframes(plan: EditPlan, clip: ArtifactRef, flow: ArtifactRef) -> ArtifactRef:
    """Invert all keyframes together, storing every step; a second run resumes after the last one stored."""
    artifact, execution = open_artifact(plan[INVERT].ref), plan.execution
    if artifact.is_complete():
        return plan[INVERT].ref
    settings = plan[INVERT].settings.inversion
    device = stage_device(execution.device, dtype=execution.dtype)
    with (
        measured() as cost,
        loaded_model(plan.inputs.model, device=device, dtype=execution.dtype) as model,
    ):
        start, points = _start(artifact, model, plan, open_artifact(clip))
        with stage_progress(plan[INVERT], total=settings.steps, done=start) as progress:

            def store(step_index: int, x: Tensor) -> None:
                artifact.write_region("latents", step_index, x.cpu().numpy()[None])
                progress.report(step_index)

            invert(
                model,
                points[-1],
                source_prompt=plan[INVERT].settings.source_prompt,
                warps=stored_warps(open_artifact(flow), plan.pairs),
                settings=settings,
                start=start,
                before=points[0] if start > 0 else None,
                keyframe_batch=execution.keyframe_batch,
                callback=store,
            )
        _store_orders(artifact, len(plan.keyframes), settings)
        return artifact.complete({"keyframes": plan.keyframes, "size": plan.size, **cost()})


def _store_orders(artifact: Artifact, count: int, settings: InversionSettings) -> None:
    """Store the order of every step: the edit uses the same ones."""
    orders = np.asarray(step_orders(count, settings), np.int32)
    artifact.require_array(
        "orders", shape=orders.shape, chunks=orders.shape, dtype="int32", dimension_names=("step", "place")
    )
    artifact.write_region("orders", 0, orders)


def _start(artifact: Artifact, model: StableDiffusion, plan: EditPlan, clip: Artifact) -> tuple[int, Tensor]:
    """Return the last step that is stored, 0 if none, with its latents and, if any, those of the step before."""
    latents = encode_frames(model, frames_at(clip, plan.keyframes, size=plan.size))
    stored = require_latents(artifact, plan[INVERT].settings.inversion.steps, latents)
    if stored == 0:
        artifact.write_region("latents", 0, latents.cpu().numpy()[None])
    # Read back even when just written: another memory layout would round differently than on resumption
    last = max(stored - 1, 0)
    return last, torch.from_numpy(artifact.read_region("latents", max(last - 1, 0), last + 1))
