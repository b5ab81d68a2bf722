"""The demonstration: a drawn scene whose object changes its colour."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from flows.cli.output import copy_out
from storage.video import write_video
from tasks.artifacts import CONTACT_SHEET, EDITED, REPORT, SIDE_BY_SIDE
from tasks.planning.plan import EditPlan
from tasks.planning.request import EditRequest, edit_request
from wave_ops.scenes.geometry import Motion, Pose
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import Background, SceneObject, SceneSpec, edit_spec

__all__ = ["collect_demo", "demo_request", "draw_demo"]

RATE = 12
INJECTION = 0.8  # only the colour changes: hold the rest fast
SCENE = SceneSpec(
    objects=(
        SceneObject(
            shape="star",
            colour="red",
            texture="plain",
            motion=Motion(start=Pose(x=-0.17, y=0.1, scale=0.28), end=Pose(x=0.16, y=-0.06, scale=0.32, angle=0.4)),
        ),
    ),
    background=Background(
        colour="blue",
        texture="checked",
        motion=Motion(start=Pose(), end=Pose(x=0.1)),
    ),
    size=(256, 256),
    frame_count=25,
)
EDITED_SCENE = edit_spec(SCENE, colour="yellow")


def draw_demo(folder: Path) -> Path:
    """Draw the source clip, always the same one."""
    path = folder / "source.mp4"
    frames = render(SCENE).frames
    write_video(path, frames, timestamps=range(len(frames)), time_base=Fraction(1, RATE))
    return path


def demo_request(video: Path) -> EditRequest:
    """Ask for another colour of the object."""
    return edit_request(
        video=str(video),
        source_prompt=SCENE.caption,
        prompt=EDITED_SCENE.caption,
        injection=INJECTION,
    )


def collect_demo(plan: EditPlan, folder: Path) -> Path:
    """Put the edited clip and what shows it beside the source."""
    copy_out(plan.encode.ref, EDITED, folder / EDITED)
    for name in (SIDE_BY_SIDE, CONTACT_SHEET, REPORT):
        copy_out(plan.assess.ref, name, folder / name)
    return folder
