"""Run all stages of a plan one after the other, without Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from storage.artifact import Artifact
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
    begin_propagation(plan)
    propagate_frames.run(plan)
    finish_propagation.run(plan)


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
