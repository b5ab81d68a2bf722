"""Record: show a run in Prefect's UI while it runs and when it has finished, and add it to the table of runs."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from storage.artifact import Artifact
from storage.reference import ArtifactRef
from storage.tables import append_run
from storage.workspace import Workspace, open_artifact
from tasks.artifacts import CONTACT_SHEET, REPORT, frames_at, planned_name, stream_frames
from tasks.planning.plan import EditPlan
from tasks.planning.stages import ASSESS, DECODE, EDIT, ENCODE
from wave_ops.preview import contact_sheet

__all__ = ["preview_keyframes", "record_run"]

_LOG = logging.getLogger(__name__)
_SHOWN_KEYFRAMES = 6


@task(
    name="preview keyframes",
    tags=["wave", "cpu"],
    task_run_name="Preview the edited keyframes",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def preview_keyframes(plan: EditPlan) -> None:
    """Show source and edited keyframes as soon as they are edited; without a preview the run goes on."""
    try:
        picture = _keyframe_sheet(plan)
        create_markdown_artifact(
            f"# {plan.request.prompt}\n\n{_image('keyframes', picture)}",
            key=_key(plan, "keyframes"),
            description=f"Keyframes of {plan.clip.name}",
        )
    except Exception as error:  # noqa: BLE001  (a picture is worth no run)
        _LOG.warning("The keyframes of %s could not be shown: %s", plan.clip.name, error)


@task(name="record", tags=["wave", "cpu"], task_run_name="Record the run", persist_result=False)
def record_run(plan: EditPlan) -> None:
    """Add the finished run to the table `runs`, and show its preview; also for a run with nothing left to compute."""
    artifact = open_artifact(plan[ASSESS].ref)
    report = artifact.read_json(REPORT)
    scores, notes = report["scores"], report.get("notes", [])
    for note in notes:
        _LOG.warning("%s: %s", plan.clip.name, note)
    append_run(Workspace.open(plan.execution.workspace), _row(plan, scores), run=str(flow_run.id or "local"))
    description = f"The edited {plan.clip.name}"
    create_markdown_artifact(_page(plan, artifact, scores, notes), key=_key(plan, "preview"), description=description)
    video = plan[ENCODE].ref
    for what, ref, name in (("video", video, planned_name(plan)), ("report", plan[ASSESS].ref, REPORT)):
        create_link_artifact(_address(ref, name), f"{what} of {plan.clip.name}", _key(plan, what), description)


def _row(plan: EditPlan, scores: dict[str, Any]) -> dict[str, Any]:
    request, height, width = plan.request, *plan.size
    return {
        "finished": datetime.now(UTC),
        "clip": plan.clip.name,
        "clip_digest": plan.clip.digest,
        "prompt": request.prompt,
        "source_prompt": request.source_prompt,
        "model": request.model,
        "steps": request.steps,
        "seed": request.seed,
        "keyframe_interval": request.keyframe_interval,
        "frames": plan.clip.frame_count,
        "keyframes": len(plan.keyframes),
        "width": width,
        "height": height,
        "video": f"{plan[ENCODE].ref.workspace}/{plan[ENCODE].ref.path}",
        **scores,
    }


def _page(plan: EditPlan, artifact: Artifact, scores: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Write the preview as Markdown."""
    sheet = np.asarray(Image.open(io.BytesIO(artifact.read_bytes(CONTACT_SHEET))).convert("RGB"))
    lines = [f"# {plan.request.prompt}", _image("contact sheet", sheet)]
    lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in scores.items()]
    return "\n\n".join(lines + [f"- {note}" for note in notes])


def _keyframe_sheet(plan: EditPlan) -> NDArray[np.uint8]:
    """Draw some of the source's keyframes above the edited ones."""
    count = len(plan.keyframes)
    places = np.linspace(0, count - 1, min(count, _SHOWN_KEYFRAMES)).round().astype(int).tolist()
    frames = [plan.keyframes[place] for place in places]
    rows = {
        "source": frames_at(open_artifact(plan[DECODE].ref), frames, size=plan.size),
        "edit": np.stack(list(_edited_keyframes(plan, frames))),
    }
    return contact_sheet(rows, frame_numbers=frames)


def _edited_keyframes(plan: EditPlan, frames: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """Read the edited keyframes with these frame indices, ascending."""
    for shot in plan.shots:
        places = [shot.keyframes.index(frame) for frame in frames if frame in shot.frames]
        yield from stream_frames(open_artifact(shot[EDIT].ref), places)


def _image(text: str, picture: NDArray[np.uint8]) -> str:
    """Write a picture as a data URI in Markdown: the UI cannot read the workspace."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return f"![{text}](data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')})"


def _key(plan: EditPlan, what: str) -> str:
    """Return the key of an artifact in Prefect's UI, one for each edit: those of a data set stay side by side."""
    return f"edit-{what}-{plan[ASSESS].ref.digest}"


def _address(ref: ArtifactRef, name: str) -> str:
    """Return the URL of a file in the workspace."""
    location = f"{ref.workspace}/{ref.path}/{name}"
    return location if "://" in location else Path(location).absolute().as_uri()
