"""Costs: what the stages of an edit took, recorded for the estimates of later runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from storage.artifact import Artifact
from storage.cost_table import CostRecord, CostTable
from storage.workspace import Workspace, open_artifact
from tasks.planning.plan import EditPlan
from tasks.planning.stages import STAGES, StageSettings, StageSpec

__all__ = ["record_costs", "stage_cost", "stage_costs"]


def stage_costs(plan: EditPlan, specs: Iterable[StageSpec[StageSettings]]) -> dict[str, list[dict[str, Any]]]:
    """Return what complete stages took, for the clip or for each of its shots, by the stage's name.

    Returns:
        Seconds, peak memory in MiB, bytes, and notes.
    """
    return {spec.name: [stage_cost(open_artifact(stage.ref)) for stage in plan.stages_of(spec)] for spec in specs}


def stage_cost(artifact: Artifact) -> dict[str, Any]:
    """Return what a complete artifact took, from its record: seconds, peak memory in MiB, bytes, and its notes."""
    record = artifact.record()
    sizes = [record["files"], *record["arrays"].values()]
    cost = {key: record["metadata"][key] for key in ("seconds", "peak_memory_mib")}
    stored = sum(sum(each.values()) for each in sizes)
    return {**cost, "stored_bytes": stored, "notes": record["metadata"].get("notes", [])}


def record_costs(plan: EditPlan, costs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Append what the stages of an edit took to the workspace's table of costs.

    Args:
        plan: the edit, planned with what decoding has found.
        costs: of all stages, from `stage_costs`.
    """
    records = [
        CostRecord(
            stage=spec.name,
            version=spec.version,
            path=part[spec].ref.path,
            digest=part[spec].ref.digest,
            **asdict(spec.load(part)),
            **{name: cost[name] for name in ("seconds", "peak_memory_mib", "stored_bytes")},
        )
        for spec in STAGES
        for part, cost in zip(plan.parts(spec), costs[spec.name], strict=True)
    ]
    CostTable(Workspace.open(plan.execution.workspace)).append(records)
