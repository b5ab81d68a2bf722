"""Free disk compared with what a run is estimated to need, before it starts."""

from __future__ import annotations

from rich.filesize import decimal

from storage.free_disk import free_bytes
from storage.workspace import Workspace, open_artifact
from tasks.planning.bulk import BulkPlan
from tasks.planning.estimate import Estimate, estimate_dataset, estimate_edit, read_costs
from tasks.planning.plan import EditPlan
from tasks.planning.stages import STAGES

__all__ = ["dataset_disk_note", "edit_disk_note"]


def edit_disk_note(plan: EditPlan) -> str:
    """Return one sentence where an edit needs more disk than is free, by the estimate; empty where it does not.

    It does not refuse the edit: without past runs in the workspace the estimate is that of arrays that are not
    compressed. Of an object store it is not known what is free.
    """
    free = free_bytes(plan.execution.workspace)
    missing = {
        spec.name: [part for part in plan.parts(spec) if not open_artifact(part[spec].ref).is_complete()]
        for spec in STAGES
    }
    if free is None or sum(spec.load(part).array_bytes for spec in STAGES for part in missing[spec.name]) <= free:
        return ""
    costs = read_costs(Workspace.open(plan.execution.workspace))
    complete = {name for name, parts in missing.items() if not parts}
    return _sentence(plan.execution.workspace, free, estimate_edit(plan, costs, complete=complete))


def dataset_disk_note(bulk: BulkPlan) -> str:
    """Return such a sentence for a data set. Clips that are freed once they are done are counted as well."""
    workspace = bulk.execution.workspace
    free = free_bytes(workspace)
    loads = {
        digest: load.array_bytes
        for item in bulk.to_run
        for digests, several in zip(item.stages, item.loads, strict=True)
        for digest, load in zip(digests, several, strict=True)
    }
    if free is None or sum(loads.values()) <= free:
        return ""
    return _sentence(workspace, free, estimate_dataset(bulk, read_costs(Workspace.open(workspace))))


def _sentence(workspace: str, free: int, estimate: Estimate) -> str:
    if estimate.disk <= free:
        return ""
    amount = "about" if estimate.disk_known else "up to"
    return (
        f"{decimal(free)} are free in the workspace {workspace}, and what is to be computed needs {amount} "
        f"{decimal(estimate.disk)}: make room, or choose another WAVE_WORKSPACE."
    )
