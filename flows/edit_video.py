"""Edit one clip: the order of the stages, and nothing else."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.placement import on_cpu, on_gpu, task_runner
from flows.planning import plan_edit_request
from flows.settings import WaveSettings, load_settings
from storage.reference import ArtifactRef
from tasks.assess import assess_edit
from tasks.decode import decode_clip
from tasks.edit import edit_keyframes
from tasks.encode import encode_edit
from tasks.flow import estimate_frame_flow, estimate_keyframe_flow
from tasks.invert import invert_keyframes
from tasks.planning.input_video import clip_name
from tasks.planning.prepare import replan
from tasks.planning.request import EditRequest
from tasks.propagate import begin_propagation, finish_propagation, propagate_frames
from tasks.record import record_run

__all__ = ["edit_video"]


def _run_name() -> str:
    request: Any = flow_run.parameters["request"]
    fields = request if isinstance(request, dict) else request.model_dump()
    return f"{clip_name(fields['video'])}: {fields['prompt']}"[:120]


@flow(name="edit-video", flow_run_name=_run_name, task_runner=task_runner(load_settings()))
def edit_video(request: EditRequest, settings: WaveSettings | None = None) -> ArtifactRef:
    """Edit a clip by text.

    Args:
        request: the clip, the prompt and how to edit.
        settings: where and on what; read from the environment (WAVE_...) by default.

    Returns:
        The artifact that holds edited.mp4.
    """
    settings = settings or load_settings()
    plan = plan_edit_request(request, settings)
    with on_cpu(settings):
        clip = decode_clip.submit(plan).result()
    plan = replan(plan)
    with on_cpu(settings):
        keyframe_flow = estimate_keyframe_flow.submit(plan, clip)
        frame_flow = estimate_frame_flow.submit(plan, clip)
    with on_gpu(settings):
        inversion = invert_keyframes.submit(plan, clip, keyframe_flow)
        keyframes = edit_keyframes.submit(plan, clip, keyframe_flow, inversion)
    begin_propagation(plan)
    on_torch = plan.execution.propagation == "torch"
    with on_gpu(settings) if on_torch else on_cpu(settings):
        propagation = propagate_frames.tagged("gpu" if on_torch else "cpu")
        intervals = [propagation.submit(plan, clip, frame_flow, keyframes, interval) for interval in plan.intervals]
    with on_cpu(settings):
        frames = finish_propagation.submit(plan, intervals)
        video = encode_edit.submit(plan, clip, frames)
        report: Any = assess_edit.submit(plan, clip, frame_flow, frames, video)
        record = record_run.submit(plan, report)
    # In their order, so that the stage that failed is the one whose error is raised
    for future in (keyframe_flow, frame_flow, inversion, keyframes, *intervals, frames, video, report, record):
        future.result()
    return plan.encode.ref
