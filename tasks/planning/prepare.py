"""From a request to its plan: find the clip, the model and the flow weights, and check that they fit together."""

from __future__ import annotations

from dataclasses import replace

from storage.digest import digest_file_once
from storage.limits import using_limits
from storage.workspace import Workspace, open_artifact
from tasks.models.checkpoints import resolve_model
from tasks.models.controlnets import resolve_controlnets
from tasks.models.flow_estimators import resolve_flow
from tasks.models.lora import resolve_loras
from tasks.planning.control_videos import find_control
from tasks.planning.decoded_facts import read_decoded_facts
from tasks.planning.input_video import clip_name, local_video
from tasks.planning.plan import EditPlan, Execution, ResolvedInputs, plan_edit
from tasks.planning.request import EditRequest
from tasks.planning.source_facts import clip_facts
from tasks.planning.stages import DECODE, StageSettings, StageSpec

__all__ = ["is_complete", "prepare_edit", "replan"]


def prepare_edit(request: EditRequest, *, execution: Execution, flow_weights: str = "") -> EditPlan:
    """Check a request and plan it; nothing is written.

    Raises:
        TaskInputError: if the model, the size or the weights cannot be used.
        VideoError: if there is no such clip, or the file is not a video.
        WorkspaceError: if the workspace cannot be opened.
    """
    with using_limits(execution.limits), local_video(request.video, rate=request.picture_rate) as path:
        clip = clip_facts(clip_name(request.video), digest_file_once(path), path)
        clip = clip.trimmed(request.trim, execution.limits)
        controls = [find_control(text, clip=clip, trim=request.trim) for text in request.control]
    model = resolve_loras(resolve_model(request.model, vae=request.vae, dtype=execution.dtype), request.lora)
    inputs = ResolvedInputs(
        request=request,
        clip=clip,
        model=model,
        controlnet=resolve_controlnets(request.controlnets, controls, model=model, dtype=execution.dtype),
        flow=resolve_flow(request.flow, weights=flow_weights),
        execution=replace(execution, workspace=Workspace.open(execution.workspace).url),
    )
    return replan(plan_edit(inputs))


def replan(plan: EditPlan) -> EditPlan:
    """Plan again with what decoding has found, if the clip has been decoded: the number of frames and the cuts."""
    ref = plan[DECODE].ref
    clip = read_decoded_facts(plan.clip, ref, Workspace.open(ref.workspace))
    return plan if clip == plan.clip else plan_edit(replace(plan.inputs, clip=clip))


def is_complete(plan: EditPlan, spec: StageSpec[StageSettings]) -> bool:
    """Return whether the workspace contains a stage's whole result, of all shots."""
    return all(open_artifact(stage.ref).is_complete() for stage in plan.stages_of(spec))
