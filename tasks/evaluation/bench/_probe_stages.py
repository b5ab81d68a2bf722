"""A program that runs the stages of a manifest's rows without Prefect: `python -m ... MANIFEST WORKSPACE`."""

from __future__ import annotations

import sys

from tasks.assess import assess_edit
from tasks.decode import decode_clip
from tasks.edit import edit_keyframes
from tasks.encode import encode_edit
from tasks.flow import estimate_frame_flow, estimate_keyframe_flow
from tasks.invert import invert_keyframes
from tasks.planning.dataset import dataset_request
from tasks.planning.plan import EditPlan, Execution
from tasks.planning.prepare import prepare_edit, replan
from tasks.planning.rows import read_rows
from tasks.propagate import begin_propagation, finish_propagation, propagate_frames

__all__ = ["main"]


def main(manifest: str, workspace: str) -> None:
    """Edit all rows, one after the other."""
    for row in read_rows(dataset_request(source=manifest)):
        _edit(prepare_edit(row.request, execution=Execution(workspace=workspace)))


def _edit(plan: EditPlan) -> None:
    decode_clip.run(plan)
    plan = replan(plan)
    for stage in (estimate_keyframe_flow, estimate_frame_flow, invert_keyframes, edit_keyframes):
        stage.run(plan)
    begin_propagation(plan)
    for stage in (propagate_frames, finish_propagation, encode_edit, assess_edit):
        stage.run(plan)


if __name__ == "__main__":
    main(*sys.argv[1:3])
