"""All stages of a plan one after the other, in this process and without Prefect."""

from __future__ import annotations

from tasks.assess import assess_edit
from tasks.decode import decode_clip
from tasks.edit import edit_keyframes
from tasks.encode import encode_edit
from tasks.flow import estimate_frame_flow, estimate_keyframe_flow
from tasks.invert import invert_keyframes
from tasks.planning.plan import EditPlan
from tasks.planning.prepare import replan
from tasks.propagate import begin_propagation, finish_propagation, propagate_frames

__all__ = ["run_propagation", "run_stages", "run_until_edited"]


def run_stages(plan: EditPlan) -> EditPlan:
    """Run what is missing of an edit; return the plan with what decoding found."""
    plan = run_until_edited(plan)
    run_propagation(plan)
    encode_edit.run(plan)
    assess_edit.run(plan)
    return plan


def run_until_edited(plan: EditPlan) -> EditPlan:
    """Run the stages up to the edited keyframes; return the plan with what decoding found."""
    decode_clip.run(plan)
    plan = replan(plan)
    for stage in (estimate_frame_flow, estimate_keyframe_flow, invert_keyframes, edit_keyframes):
        stage.run(plan)
    return plan


def run_propagation(plan: EditPlan) -> None:
    """Propagate the edited keyframes to all frames."""
    begin_propagation(plan)
    propagate_frames.run(plan)
    finish_propagation.run(plan)
