"""Record: add a row to the workspace's table of runs, and a preview to Prefect's UI."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from typing import Any

from PIL import Image
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from storage.artifact import Artifact
from storage.tables import append_run
from storage.workspace import Workspace, open_artifact
from tasks.artifacts import CONTACT_SHEET, REPORT
from tasks.planning.plan import EditPlan
from tasks.planning.stages import ASSESS, ENCODE

__all__ = ["record_run"]


@task(name="record", tags=["wave", "cpu"], task_run_name="Record the run", persist_result=False)
def record_run(plan: EditPlan) -> None:
    """Add the finished run to the table `runs`, and show its preview; also for a run with nothing left to compute."""
    artifact = open_artifact(plan[ASSESS].ref)
    scores = artifact.read_json(REPORT)["scores"]
    append_run(Workspace.open(plan.execution.workspace), _row(plan, scores), run=str(flow_run.id or "local"))
    create_markdown_artifact(
        _page(plan, artifact, scores), key="edit-preview", description=f"The edited {plan.clip.name}"
    )


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


def _page(plan: EditPlan, artifact: Artifact, scores: dict[str, Any]) -> str:
    """Write the preview as Markdown. The picture is a data URI: the UI cannot read the workspace."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(artifact.read_bytes(CONTACT_SHEET))).convert("RGB").save(buffer, "JPEG", quality=85)
    picture = base64.b64encode(buffer.getvalue()).decode("ascii")
    lines = [f"# {plan.request.prompt}", f"![contact sheet](data:image/jpeg;base64,{picture})"]
    return "\n\n".join(lines + [f"- {name.replace('_', ' ')}: {value}" for name, value in scores.items()])
