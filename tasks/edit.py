"""Edit: all keyframes together, following the prompt."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.artifact import Artifact
from storage.row_access import RowWriter
from storage.workspace import open_artifact
from tasks.artifacts import require_latents, require_pictures, stored_warps, stream_frames
from tasks.control_images import edit_controls
from tasks.memory import StageMemory
from tasks.models.devices import stage_device
from tasks.models.safe_precision import compute_finite
from tasks.planning.batches import Job
from tasks.planning.plan import EditPlan
from tasks.planning.stages import DECODE, EDIT, INVERT, KEYFRAME_FLOW
from tasks.progress import stage_progress
from tasks.prompt_notes import prompt_notes
from tasks.stage import measured, stage_task
from tasks.stored_latents import reading_ahead, storing_behind
from tasks.vae_batches import decoded_frames
from wave_ops.change_mask import change_mask, paste_edit, prompt_difference
from wave_ops.diffusion import StableDiffusion
from wave_ops.editing import edit
from wave_ops.finite import check_finite
from wave_ops.stage_footprints import edit_footprint

__all__ = ["edit_keyframes"]


@stage_task(EDIT)
def edit_keyframes(job: Job) -> None:
    """Denoise the keyframes of a shot together, storing every step; a second run resumes after the last one stored."""
    plan = job.plan
    artifact, parts, execution = open_artifact(plan[EDIT].ref), plan.inputs, plan.execution
    device = stage_device(execution.device, dtype=execution.dtype)
    long = list[str]()

    def compute(model: StableDiffusion) -> None:
        stage = plan[EDIT].settings
        long[:] = prompt_notes(model, {"prompt": stage.prompt, "negative prompt": stage.negative_prompt})
        _edit(artifact, model, plan)

    with measured() as cost:
        notes = compute_finite(
            compute,
            parts.model,
            () if parts.controlnet is None else parts.controlnet.networks,
            stage="The edit",
            device=device,
            dtype=execution.dtype,
            compiled=execution.compiled,
        )
        artifact.complete({"keyframes": plan.keyframes, "notes": [*long, *notes], **cost()})


def _edit(artifact: Artifact, model: StableDiffusion, plan: EditPlan) -> None:
    """Compute and store what is missing of the latents, and then the edited keyframes."""
    editing = plan[EDIT].settings.editing
    memory = StageMemory(
        model,
        size=plan.size,
        keyframes=len(plan.keyframes),
        limit=plan.execution.memory_limit,
        footprint=lambda: edit_footprint(model, plan.size, editing),
        key=(plan.inputs.model, plan.inputs.controlnet, plan.execution.dtype, editing),
    )
    latents = _denoise(artifact, model, plan, memory)
    _store_frames(artifact, plan, decoded_frames(model, latents, memory))


def _store_frames(artifact: Artifact, plan: EditPlan, frames: Iterator[NDArray[np.uint8]]) -> None:
    require_pictures(artifact, (len(plan.keyframes), *plan.size, 3), axis="keyframe")
    editing, writer = plan[EDIT].settings.editing, artifact.row_writer("frames")
    if editing.keep and editing.paste:
        mask = torch.from_numpy(artifact.read_region("mask"))
        three = zip(_sources(plan), frames, mask, strict=True)
        frames = (paste_edit(source[None], frame[None], part[None])[0] for source, frame, part in three)
    for frame in frames:
        writer.append(frame)
    writer.flush()


def _denoise(artifact: Artifact, model: StableDiffusion, plan: EditPlan, memory: StageMemory) -> Tensor:
    stage, inverted = plan[EDIT].settings, _Inversion(open_artifact(plan[INVERT].ref))
    settings = stage.editing
    step, latents, writer = _start(artifact, settings.steps, inverted)
    batch = memory.keyframe_batch(plan.execution.keyframe_batch, divisible=settings.anchor == "order")
    mask = _change_mask(artifact, model, plan, inverted, batch) if settings.keep else None
    with (
        edit_controls(plan) as controls,
        stage_progress(plan[EDIT], total=settings.steps, done=settings.steps - step) as progress,
        reading_ahead(inverted, device=model.device) as source,
        storing_behind(writer) as append,
    ):

        def store(step_index: int, x: Tensor) -> None:
            append(x, step_index)
            progress.report(settings.steps - step_index)

        return edit(
            memory.with_graphs(batch),
            source,
            prompt=stage.prompt,
            source_prompt=plan[INVERT].settings.source_prompt,
            negative_prompt=stage.negative_prompt,
            orders=inverted.orders(),
            warps=stored_warps(open_artifact(plan[KEYFRAME_FLOW].ref), plan.pairs),
            settings=settings,
            controls=controls,
            mask=mask,
            start=(step, latents),
            keyframe_batch=batch,
            halved=memory.halved,
            callback=store,
        )


def _change_mask(
    artifact: Artifact, model: StableDiffusion, plan: EditPlan, inverted: _Inversion, batch: int | None
) -> Tensor:
    """Return where the prompts disagree, from the store if it is there: a resumed edit goes on with the same mask."""
    stage, clean = plan[EDIT].settings, inverted(0)
    shape = (len(clean), 1, *clean.shape[2:])
    artifact.require_array(
        "mask",
        shape=shape,
        chunks=shape,
        dtype="float32",
        dimension_names=("keyframe", "value", "row", "column"),
    )
    if artifact.readable_prefix("mask") == len(clean):
        return torch.from_numpy(artifact.read_region("mask"))
    difference = prompt_difference(
        model,
        clean,
        source_prompt=plan[INVERT].settings.source_prompt,
        prompt=stage.prompt,
        steps=stage.editing.steps,
        seed=plan[INVERT].settings.inversion.seed,
        keyframe_batch=batch,
    )
    check_finite(difference.numpy(), "the predictions of the change mask")
    editing = stage.editing
    mask = change_mask(difference, _sources(plan), threshold=editing.keep_threshold, grow=editing.keep_grow)
    artifact.write_region("mask", 0, mask.numpy())
    return mask


def _sources(plan: EditPlan) -> Iterator[NDArray[np.uint8]]:
    """Yield the source's keyframes at the size at which they are edited."""
    return stream_frames(open_artifact(plan[DECODE].ref), plan.keyframes, size=plan.size)


class _Inversion:
    """The stored latents of the inversion, read one step at a time."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._latents = artifact.row_reader("latents")

    def __call__(self, step_index: int) -> Tensor:
        return torch.from_numpy(self._latents[step_index])

    def orders(self) -> list[list[int]]:
        orders: list[list[int]] = self._artifact.read_region("orders").tolist()
        return orders


def _start(artifact: Artifact, steps: int, inverted: _Inversion) -> tuple[int, Tensor, RowWriter]:
    """Return the last step that is stored, or the inversion's last, with its latents and what writes on.

    Steps are stored in the order in which they are computed: x_S, x_{S-1}, ..., x_0.
    """
    latents = inverted(steps)
    stored = require_latents(artifact, steps, latents.shape)
    writer = artifact.row_writer("latents", stored)
    if stored == 0:
        writer.append(latents.numpy())
        return steps, latents, writer
    return steps - stored + 1, torch.from_numpy(artifact.read_region("latents", stored - 1, stored)[0]), writer
