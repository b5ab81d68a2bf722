"""Plans, and what their stages store."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from storage.artifact import Artifact
from storage.workspace import open_artifact
from tasks.planning.plan import EditPlan, Execution
from tasks.planning.prepare import prepare_edit
from tasks.planning.request import EditRequest
from tasks.planning.stages import StageSettings, StageSpec
from tasks.run_stages import run_propagation, run_stages, run_until_edited

__all__ = ["artifact_of", "contents", "make_plan", "run_propagation", "run_stages", "run_until_edited"]


def make_plan(request: EditRequest, workspace: Path) -> EditPlan:
    return prepare_edit(request, execution=Execution(workspace=str(workspace)))


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
