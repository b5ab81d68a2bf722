"""From a request to its plan: find the clip, the model and the flow weights, and check that they go together."""

from __future__ import annotations

from dataclasses import replace

from storage.digest import digest_file
from storage.video import VideoInfo, probe
from storage.workspace import Workspace, open_artifact
from tasks.models import resolve_controlnet, resolve_model
from tasks.plan import ClipFacts, Compute, EditPlan, Ingredients, plan_edit
from tasks.request import EditRequest
from tasks.source import clip_name, local_video
from tasks.weights import resolve_flow

__all__ = ["completed", "prepare_edit", "with_decoded"]


def prepare_edit(request: EditRequest, *, compute: Compute, flow_weights: str = "") -> EditPlan:
    """Check a request against the world and plan it.

    Raises:
        TaskInputError: if the model, the size or the weights cannot be used.
        VideoError: if there is no such clip, or it is no video.
        WorkspaceError: if the workspace cannot be used.
    """
    with local_video(request.video) as path:
        info, digest = probe(path), digest_file(path)
    model = resolve_model(request.model, dtype=compute.dtype)
    ingredients = Ingredients(
        request=request,
        clip=_facts(clip_name(request.video), digest, info),
        model=model,
        controlnet=resolve_controlnet(request.controlnet, model=model, dtype=compute.dtype),
        flow=resolve_flow(request.flow, weights=flow_weights),
        compute=replace(compute, workspace=Workspace.open(compute.workspace).url),
    )
    plan = plan_edit(ingredients)
    return with_decoded(plan) if completed(plan, "decode") else plan


def _facts(name: str, digest: str, info: VideoInfo) -> ClipFacts:
    return ClipFacts(name=name, digest=digest, frame_count=info.frame_count, size=(info.height, info.width))


def with_decoded(plan: EditPlan) -> EditPlan:
    """Plan again with what decoding has found: the number of frames and the cuts."""
    found = open_artifact(plan.decode.ref).metadata
    clip = replace(plan.clip, frame_count=found["frame_count"], cuts=tuple(found["cuts"]))
    return plan_edit(replace(plan.ingredients, clip=clip))


def completed(plan: EditPlan, stage: str) -> bool:
    """Tell whether the workspace holds a stage's whole result."""
    return open_artifact(getattr(plan, stage).ref).is_complete()
