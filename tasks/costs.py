"""Costs: what the stages of an edit took, recorded for the estimates of later runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from storage.artifact import Artifact
from storage.cost_table import CostRecord, CostTable
from storage.workspace import Workspace
from tasks.planning.plan import EditPlan
from tasks.planning.stages import STAGES

__all__ = ["record_costs", "stage_cost"]


def stage_cost(artifact: Artifact) -> dict[str, Any]:
    """Return what a complete artifact took, from its record: seconds, peak memory in MiB, and bytes."""
    record = artifact.record()
    sizes = [record["files"], *record["arrays"].values()]
    cost = {key: record["metadata"][key] for key in ("seconds", "peak_memory_mib")}
    return {**cost, "stored_bytes": sum(sum(each.values()) for each in sizes)}


def record_costs(plan: EditPlan, costs: Mapping[str, Mapping[str, Any]]) -> None:
    """Append what the stages of an edit took to the workspace's table of costs.

    Args:
        plan: the edit, planned with what decoding has found.
        costs: of all stages, by name, from `stage_cost`; other values in them have no effect.
    """
    records = [
        CostRecord(
            stage=spec.name,
            version=spec.version,
            path=plan[spec].ref.path,
            digest=plan[spec].ref.digest,
            **asdict(spec.load(plan)),
            **{name: costs[spec.name][name] for name in ("seconds", "peak_memory_mib", "stored_bytes")},
        )
        for spec in STAGES
    ]
    CostTable(Workspace.open(plan.execution.workspace)).append(records)
