"""Run all stages of a plan one after the other, without Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from storage.artifact import Artifact
from storage.reference import ArtifactRef
from storage.workspace import open_artifact
from tasks.assess import assess_edit
from tasks.decode import decode_clip
from tasks.edit import edit_keyframes
from tasks.encode import encode_edit
from tasks.flow import estimate_frame_flow, estimate_keyframe_flow
from tasks.invert import invert_keyframes
from tasks.planning.plan import EditPlan, Execution
from tasks.planning.prepare import prepare_edit, replan
from tasks.planning.request import EditRequest
from tasks.planning.stages import StageSettings, StageSpec
from tasks.propagate import begin_propagation, finish_propagation, propagate_frames

__all__ = ["artifact_of", "contents", "make_plan", "run_propagation", "run_stages", "run_until_edited"]


def make_plan(request: EditRequest, workspace: Path) -> EditPlan:
    return prepare_edit(request, execution=Execution(workspace=str(workspace)))


def run_stages(plan: EditPlan) -> EditPlan:
    """Run what is missing of an edit; return the plan with what decoding found."""
    plan, clip, frame_flow, keyframes = run_until_edited(plan)
    frames = run_propagation(plan, clip, frame_flow, keyframes)
    video = encode_edit.task.fn(plan, clip, frames)
    assess_edit.task.fn(plan, clip, frame_flow, frames, video)
    return plan


def run_until_edited(plan: EditPlan) -> tuple[EditPlan, ArtifactRef, ArtifactRef, ArtifactRef]:
    """Run the stages up to the edited keyframes; return the plan, the clip, its flow and the keyframes."""
    clip = decode_clip.task.fn(plan)
    plan = replan(plan)
    keyframe_flow, frame_flow = estimate_keyframe_flow.task.fn(plan, clip), estimate_frame_flow.task.fn(plan, clip)
    inversion = invert_keyframes.task.fn(plan, clip, keyframe_flow)
    return plan, clip, frame_flow, edit_keyframes.task.fn(plan, clip, keyframe_flow, inversion)


def run_propagation(plan: EditPlan, clip: ArtifactRef, frame_flow: ArtifactRef, keyframes: ArtifactRef) -> ArtifactRef:
    begin_propagation(plan)
    parts = [propagate_frames.task.fn(plan, clip, frame_flow, keyframes, interval) for interval in plan.intervals]
    return finish_propagation.task.fn(plan, parts)


def artifact_of(plan: EditPlan, spec: StageSpec[StageSettings]) -> Artifact:
    return open_artifact(plan[spec].ref)


def contents(workspace: Path) -> dict[str, str]:
    """Return digests of all chunks and files below clips/, without records, which contain how long a stage took."""
    return dict(_digests(workspace / "clips"))


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        recorded = path.name in {"complete.json", "report.json"} or path.parent.name == "parts"
        if path.is_file() and not recorded:
            yield str(path.relative_to(folder)), sha256(path.read_bytes()).hexdigest()
