"""Edit one clip: the order of the stages, and nothing else."""

from __future__ import annotations

from typing import Any, TypeVar

from prefect import flow
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run

from flows.placement import ConfiguredTaskRunner, configure_runner, placed
from flows.planning import planned_edit
from flows.settings import WaveSettings, load_settings
from storage.reference import ArtifactRef
from tasks.assess import assess_edit
from tasks.cancel import cancellable_flow, wait_for_future
from tasks.decode import decode_clip
from tasks.edit import edit_keyframes
from tasks.encode import encode_edit
from tasks.flow import estimate_frame_flow, estimate_keyframe_flow
from tasks.invert import invert_keyframes
from tasks.logs import send_logs_to_run
from tasks.planning.input_video import clip_name, kept_downloads
from tasks.planning.plan import EditPlan
from tasks.planning.prepare import is_complete, replan
from tasks.planning.request import EditRequest
from tasks.planning.stages import ASSESS, ENCODE, STAGES
from tasks.propagate import begin_propagation, finish_propagation, propagate_frames
from tasks.record import preview_keyframes, record_run
from tasks.stage import StageTask, Submission

__all__ = ["edit_video"]

T = TypeVar("T")
_LAST = len(STAGES)
"""Priority of what follows the stages. That of a stage is its place in the table: clips near their end go first. Else
clips that were begun together would end together, and the GPUs would wait while the next ones are decoded."""


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
    send_logs_to_run()
    settings = settings or load_settings()
    configure_runner(settings)
    with kept_downloads():
        return cancellable_flow(lambda: _run(planned_edit(request, settings), settings))


def _run(plan: EditPlan, settings: WaveSettings) -> ArtifactRef:
    """Run the stages, unless the video and its report are there: what they were made from may have been freed."""
    if not all(is_complete(plan, spec) for spec in (ENCODE, ASSESS)):
        plan = _run_stages(plan, settings)
    with placed(settings, "cpu", priority=_LAST):
        _result(record_run.submit(plan))
    return plan[ENCODE].ref


def _run_stages(plan: EditPlan, settings: WaveSettings) -> EditPlan:
    def submit(stage: StageTask, *after: Submission) -> Submission:
        with placed(settings, stage.runs_on(plan), priority=STAGES.index(stage.spec)):
            return stage.submit(plan, *after)

    clip = submit(decode_clip)
    _wait(clip)
    plan = replan(plan)
    frame_flow = submit(estimate_frame_flow)
    keyframe_flow = submit(estimate_keyframe_flow, frame_flow)
    inversion = submit(invert_keyframes, keyframe_flow)
    keyframes = submit(edit_keyframes, inversion)
    with placed(settings, "cpu", priority=_LAST):
        waits = keyframes.of(plan.frames)
        previews = [] if keyframes.stored else [preview_keyframes.submit(plan, wait_for=waits, return_state=False)]
    begin_propagation(plan)
    stretches = submit(propagate_frames, keyframes, frame_flow)
    frames = submit(finish_propagation, stretches)
    video = submit(encode_edit, frames)
    report = submit(assess_edit, video)
    # In their order, so that the stage that failed is the one whose error is raised
    for stage in (frame_flow, keyframe_flow, inversion, keyframes, stretches, frames, video, report):
        _wait(stage)
    wait(previews)  # whatever became of them
    return plan


def _wait(stage: Submission) -> None:
    for _, future in stage.futures:
        _result(future)


def _result(future: PrefectFuture[T]) -> T:
    wait_for_future(future)
    return future.result()
