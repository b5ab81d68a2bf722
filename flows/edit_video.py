"""Edit one clip: the order of the stages, and nothing else."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.placement import ConfiguredTaskRunner, configure_runner, placed
from flows.planning import planned_edit
from flows.settings import WaveSettings, load_settings
from storage.reference import ArtifactRef
from tasks.assess import assess_edit
from tasks.decode import decode_clip
from tasks.edit import edit_keyframes
from tasks.encode import encode_edit
from tasks.flow import estimate_frame_flow, estimate_keyframe_flow
from tasks.invert import invert_keyframes
from tasks.planning.input_video import clip_name, kept_downloads
from tasks.planning.plan import EditPlan
from tasks.planning.prepare import replan
from tasks.planning.request import EditRequest
from tasks.planning.stages import ENCODE
from tasks.propagate import begin_propagation, finish_propagation, propagate_frames
from tasks.record import record_run
from tasks.stage import StageTask, Submission

__all__ = ["edit_video"]


def _run_name() -> str:
    request: Any = flow_run.parameters["request"]
    fields = request if isinstance(request, dict) else request.model_dump()
    return f"{clip_name(fields['video'])}: {fields['prompt']}"[:120]


@flow(name="edit-video", flow_run_name=_run_name, task_runner=ConfiguredTaskRunner())
def edit_video(request: EditRequest, settings: WaveSettings | None = None) -> ArtifactRef:
    """Edit a clip by text.

    Args:
        request: the clip, the prompt and how to edit.
        settings: where and on what; read from the environment (WAVE_...) by default.

    Returns:
        The artifact that contains edited.mp4.
    """
    settings = settings or load_settings()
    configure_runner(settings)
    with kept_downloads():
        return _run_stages(planned_edit(request, settings), settings)


def _run_stages(plan: EditPlan, settings: WaveSettings) -> ArtifactRef:
    def submit(stage: StageTask, *after: Submission) -> Submission:
        with placed(settings, stage.runs_on(plan)):
            return stage.submit(plan, *after)

    clip = submit(decode_clip)
    clip.result()
    plan = replan(plan)
    keyframe_flow = submit(estimate_keyframe_flow)
    frame_flow = submit(estimate_frame_flow)
    inversion = submit(invert_keyframes, keyframe_flow)
    keyframes = submit(edit_keyframes, inversion)
    begin_propagation(plan)
    stretches = submit(propagate_frames, keyframes, frame_flow)
    frames = submit(finish_propagation, stretches)
    video = submit(encode_edit, frames)
    report = submit(assess_edit, video)
    with placed(settings, "cpu"):
        record = record_run.submit(plan, wait_for=report.of(plan.frames), return_state=False)
    # In their order, so that the stage that failed is the one whose error is raised
    for stage in (keyframe_flow, frame_flow, inversion, keyframes, stretches, frames, video, report):
        stage.result()
    record.result()
    return plan[ENCODE].ref
