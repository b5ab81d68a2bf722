"""`wave demo`: a drawn scene with an object that changes its colour."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import STDERR, VerboseOption, WorkspaceOption, app, read_settings, say
from flows.cli.edit import plan, run
from tasks.planning.request import EditRequest, edit_request

if TYPE_CHECKING:
    from tasks.planning.plan import EditPlan
    from wave_ops.scenes.specs import SceneSpec

__all__ = ["collect_demo", "demo_request", "demo_scene", "draw_demo"]

RATE = 12
INJECTION = 0.8  # only the colour changes: keep the rest


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to fill.")] = Path("demo"),
    workspace: WorkspaceOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Draw a scene and edit it with the embedded model."""
    chosen = read_settings(workspace=workspace or str(output / "workspace"))
    with STDERR.status("Drawing a scene"):
        request = demo_request(draw_demo(output))
    STDERR.print(f"Source: {request.source_prompt}\nPrompt: {request.prompt}")
    planned = plan(request, chosen)
    run(planned, chosen, verbose=verbose)
    say(f"The demo is in {collect_demo(planned, output)}")


def demo_scene() -> SceneSpec:
    """Describe the source: a red star that moves and grows over a blue checked background."""
    from wave_ops.scenes.geometry import Motion, Pose
    from wave_ops.scenes.specs import Background, SceneObject, SceneSpec

    return SceneSpec(
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


def draw_demo(folder: Path) -> Path:
    """Draw the source clip, always the same one."""
    from storage.video import write_video
    from wave_ops.scenes.rendering import render

    path, frames = folder / "source.mp4", render(demo_scene()).frames
    write_video(path, frames, timestamps=range(len(frames)), time_base=Fraction(1, RATE))
    return path


def demo_request(video: Path) -> EditRequest:
    """Return the request for another colour of the object."""
    from wave_ops.scenes.specs import edit_spec

    scene = demo_scene()
    return edit_request(
        video=str(video),
        source_prompt=scene.caption,
        prompt=edit_spec(scene, colour="yellow").caption,
        injection=INJECTION,
    )


def collect_demo(plan: EditPlan, folder: Path) -> Path:
    """Copy the edited clip, the report and the previews next to the source."""
    from flows.cli.output import copy_out
    from tasks.artifacts import CONTACT_SHEET, EDITED, REPORT, SIDE_BY_SIDE
    from tasks.planning.stages import ASSESS, ENCODE

    copy_out(plan[ENCODE].ref, EDITED, folder / EDITED)
    for name in (SIDE_BY_SIDE, CONTACT_SHEET, REPORT):
        copy_out(plan[ASSESS].ref, name, folder / name)
    return folder
