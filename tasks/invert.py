"""Invert: compute the keyframes' latents at every noise level."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from storage.artifact import Artifact
from storage.row_access import RowWriter
from storage.workspace import open_artifact
from tasks.artifacts import finite_latents, require_latents, stored_warps, stream_frames
from tasks.memory import StageMemory
from tasks.models.devices import stage_device
from tasks.models.safe_precision import compute_finite
from tasks.planning.batches import Job
from tasks.planning.plan import EditPlan
from tasks.planning.stages import DECODE, INVERT, KEYFRAME_FLOW
from tasks.progress import stage_progress
from tasks.prompt_notes import prompt_notes
from tasks.stage import measured, stage_task
from tasks.stored_latents import storing_behind
from tasks.vae_batches import encoded_frames
from wave_ops.diffusion import StableDiffusion
from wave_ops.inversion import InversionSettings, invert, step_orders
from wave_ops.stage_footprints import inversion_footprint

__all__ = ["invert_keyframes"]


@stage_task(INVERT)
def invert_keyframes(job: Job) -> None:
    """Invert the keyframes of a shot together, storing every step; a second run resumes after the last one stored."""
    plan, execution = job.plan, job.plan.execution
    artifact = open_artifact(plan[INVERT].ref)
    device = stage_device(execution.device, dtype=execution.dtype)
    long = list[str]()

    def compute(model: StableDiffusion) -> None:
        long[:] = prompt_notes(model, {"source prompt": plan[INVERT].settings.source_prompt})
        _invert(artifact, model, plan)

    with measured() as cost:
        notes = compute_finite(
            compute,
            plan.inputs.model,
            stage="Inversion",
            device=device,
            dtype=execution.dtype,
            compiled=execution.compiled,
        )
        _store_orders(artifact, len(plan.keyframes), plan[INVERT].settings.inversion)
        artifact.complete({"keyframes": plan.keyframes, "size": plan.size, "notes": [*long, *notes], **cost()})


def _invert(artifact: Artifact, model: StableDiffusion, plan: EditPlan) -> None:
    """Compute and store what is missing of the latents."""
    settings, execution = plan[INVERT].settings.inversion, plan.execution
    memory = StageMemory(
        model,
        size=plan.size,
        keyframes=len(plan.keyframes),
        limit=execution.memory_limit,
        footprint=lambda: inversion_footprint(model, plan.size),
        key=(plan.inputs.model, execution.dtype),
    )
    start, points, writer = _start(artifact, model, plan, memory)
    batch = memory.keyframe_batch(execution.keyframe_batch)
    with stage_progress(plan[INVERT], total=settings.steps, done=start) as progress, storing_behind(writer) as append:

        def store(step_index: int, x: Tensor) -> None:
            append(x, step_index)
            progress.report(step_index)

        invert(
            memory.with_graphs(batch),
            points[-1],
            source_prompt=plan[INVERT].settings.source_prompt,
            warps=stored_warps(open_artifact(plan[KEYFRAME_FLOW].ref), plan.pairs),
            settings=settings,
            start=start,
            before=points[0] if start > 0 else None,
            keyframe_batch=batch,
            halved=memory.halved,
            callback=store,
        )


def _store_orders(artifact: Artifact, count: int, settings: InversionSettings) -> None:
    """Store the order of every step: the edit uses the same ones."""
    orders = np.asarray(step_orders(count, settings), np.int32)
    artifact.require_array(
        "orders", shape=orders.shape, chunks=orders.shape, dtype="int32", dimension_names=("step", "place")
    )
    artifact.write_region("orders", 0, orders)


def _start(
    artifact: Artifact, model: StableDiffusion, plan: EditPlan, memory: StageMemory
) -> tuple[int, Tensor, RowWriter]:
    """Return the last step that is stored, 0 if none, the latents of the step before and of it, and what writes on.

    Latents of step 0 alone are returned where nothing is stored.
    """
    shape = (len(plan.keyframes), *model.latent_shape(plan.size))
    stored = require_latents(artifact, plan[INVERT].settings.inversion.steps, shape)
    writer = artifact.row_writer("latents", stored)
    if stored > 0:
        points = torch.from_numpy(artifact.read_region("latents", max(stored - 2, 0), stored))
        return stored - 1, points, writer
    frames = stream_frames(open_artifact(plan[DECODE].ref), plan.keyframes, size=plan.size)
    latents = encoded_frames(model, frames, memory, count=len(plan.keyframes))
    writer.append(finite_latents(latents, 0))
    # In the memory layout of what is read back: another one would round differently than on resumption
    return 0, torch.from_numpy(np.ascontiguousarray(latents.cpu().numpy()))[None], writer
