"""Invert: the keyframes' latents at every noise level."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from storage.artifact import Artifact
from storage.reference import ArtifactRef
from storage.workspace import open_artifact
from tasks._frames import frames_at, stored_warps
from tasks._stage import measured, stage_task
from tasks.loading import borrowed_model
from tasks.plan import EditPlan
from tasks.progress import stage_progress
from wave_ops.diffusion import StableDiffusion, encode_frames
from wave_ops.inversion import InversionSettings, invert, step_orders

__all__ = ["invert_keyframes", "require_latents"]


@stage_task("invert", "gpu")
def invert_keyframes(plan: EditPlan, clip: ArtifactRef, flow: ArtifactRef) -> ArtifactRef:
    """Invert all keyframes together, storing every step; a second run goes on after the last one stored."""
    artifact, compute = open_artifact(plan.invert.ref), plan.compute
    if artifact.is_complete():
        return plan.invert.ref
    settings = InversionSettings(**plan.invert.settings["inversion"])
    with (
        measured() as figures,
        borrowed_model(plan.ingredients.model, device=compute.device, dtype=compute.dtype) as model,
    ):
        start, points = _start(artifact, model, plan, open_artifact(clip))
        with stage_progress(plan.invert, total=settings.steps, done=start) as progress:

            def store(step_index: int, x: Tensor) -> None:
                artifact.write_region("latents", step_index, x.cpu().numpy()[None])
                progress.report(step_index)

            invert(
                model,
                points[-1],
                source_prompt=plan.invert.settings["source_prompt"],
                warps=stored_warps(open_artifact(flow), plan.pairs),
                settings=settings,
                start=start,
                before=points[0] if start > 0 else None,
                chunk_size=compute.chunk_size,
                callback=store,
            )
        _store_orders(artifact, len(plan.keyframes), settings)
        return artifact.complete({"keyframes": plan.keyframes, "size": plan.size, **figures()})


def _store_orders(artifact: Artifact, count: int, settings: InversionSettings) -> None:
    """Store the order of every step, for the edit takes the very same."""
    orders = np.asarray(step_orders(count, settings), np.int32)
    artifact.require_array(
        "orders", shape=orders.shape, chunks=orders.shape, dtype="int32", dimension_names=("step", "place")
    )
    artifact.write_region("orders", 0, orders)


def require_latents(artifact: Artifact, steps: int, latents: Tensor) -> int:
    """Make the array of all steps' latents, one chunk per step, or reopen it; tell how many steps it holds."""
    shape = (steps + 1, *latents.shape)
    artifact.require_array(
        "latents",
        shape=shape,
        chunks=(1, *shape[1:]),
        dtype="float32",
        dimension_names=("step", "keyframe", "channel", "height", "width"),
    )
    return artifact.readable_prefix("latents")


def _start(artifact: Artifact, model: StableDiffusion, plan: EditPlan, clip: Artifact) -> tuple[int, Tensor]:
    """Find the last step that is stored, or begin with the frames' own latents; give them and, if any, those before."""
    latents = encode_frames(model, frames_at(clip, plan.keyframes, size=plan.size))
    stored = require_latents(artifact, plan.invert.settings["inversion"]["steps"], latents)
    if stored == 0:
        artifact.write_region("latents", 0, latents.cpu().numpy()[None])
    # Read back even when just written: another memory layout would round differently than on resumption
    last = max(stored - 1, 0)
    return last, torch.from_numpy(artifact.read_region("latents", max(last - 1, 0), last + 1))
