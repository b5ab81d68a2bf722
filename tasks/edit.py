"""Edit: all keyframes together, following the prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from storage.artifact import Artifact
from storage.reference import ArtifactRef
from storage.workspace import open_artifact
from tasks.artifacts import frames_at, require_latents, stored_warps
from tasks.models.devices import stage_device
from tasks.models.loading import loaded_model
from tasks.planning.plan import EditPlan
from tasks.planning.stages import EDIT, INVERT
from tasks.progress import stage_progress
from tasks.stage import measured, stage_task
from wave_ops.diffusion import StableDiffusion, decode_latents
from wave_ops.edges import canny_edges
from wave_ops.editing import edit

__all__ = ["edit_keyframes"]


@stage_task(EDIT)
def edit_keyframes(plan: EditPlan, clip: ArtifactRef, flow: ArtifactRef, inversion: ArtifactRef) -> ArtifactRef:
    """Denoise all keyframes together, storing every step; a second run resumes after the last one stored."""
    artifact, parts, execution = open_artifact(plan[EDIT].ref), plan.inputs, plan.execution
    if artifact.is_complete():
        return plan[EDIT].ref
    device = stage_device(execution.device, dtype=execution.dtype)
    with (
        measured() as cost,
        loaded_model(parts.model, parts.controlnet, device=device, dtype=execution.dtype) as model,
    ):
        latents = _denoise(artifact, model, plan, clip=clip, flow=flow, inversion=inversion)
        keyframes = decode_latents(model, latents)
        artifact.require_array(
            "frames",
            shape=keyframes.shape,
            chunks=(1, *keyframes.shape[1:]),
            dtype="uint8",
            dimension_names=("keyframe", "height", "width", "channel"),
        )
        artifact.write_region("frames", 0, keyframes)
        return artifact.complete({"keyframes": plan.keyframes, **cost()})


def _denoise(
    artifact: Artifact,
    model: StableDiffusion,
    plan: EditPlan,
    *,
    clip: ArtifactRef,
    flow: ArtifactRef,
    inversion: ArtifactRef,
) -> Tensor:
    stage, inverted = plan[EDIT].settings, _Inversion(open_artifact(inversion))
    settings = stage.editing
    start = _start(artifact, settings.steps, inverted)
    edges = None
    if model.controlnet is not None:
        edges = canny_edges(frames_at(open_artifact(clip), plan.keyframes, size=plan.size))
    with stage_progress(plan[EDIT], total=settings.steps, done=settings.steps - start[0]) as progress:

        def store(step_index: int, x: Tensor) -> None:
            artifact.write_region("latents", settings.steps - step_index, x.cpu().numpy()[None])
            progress.report(settings.steps - step_index)

        return edit(
            model,
            inverted,
            prompt=stage.prompt,
            source_prompt=plan[INVERT].settings.source_prompt,
            negative_prompt=stage.negative_prompt,
            orders=inverted.orders(),
            warps=stored_warps(open_artifact(flow), plan.pairs),
            settings=settings,
            edges=edges,
            start=start,
            keyframe_batch=plan.execution.keyframe_batch,
            callback=store,
        )


class _Inversion:
    """The stored latents of the inversion, read one step at a time."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

    def __call__(self, step_index: int) -> Tensor:
        return torch.from_numpy(self._artifact.read_region("latents", step_index, step_index + 1)[0])

    def orders(self) -> list[list[int]]:
        orders: list[list[int]] = self._artifact.read_region("orders").tolist()
        return orders


def _start(artifact: Artifact, steps: int, inverted: _Inversion) -> tuple[int, Tensor]:
    """Return the last step that is stored, or the inversion's last.

    Steps are stored in the order in which they are computed: x_S, x_{S-1}, ..., x_0.
    """
    latents = inverted(steps)
    stored = require_latents(artifact, steps, latents)
    if stored == 0:
        artifact.write_region("latents", 0, latents.numpy()[None])
        return steps, latents
    return steps - stored + 1, torch.from_numpy(artifact.read_region("latents", stored - 1, stored)[0])
