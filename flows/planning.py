"""Plans under the settings of this machine, without Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from flows.gpu_workers import cuda_where_stages_run
from flows.settings import WaveSettings
from storage.status_table import StatusTable, row_key
from storage.workspace import Workspace
from tasks.models.devices import choose_backend, choose_device, choose_dtype
from tasks.planning.bulk import BulkPlan, plan_rows
from tasks.planning.dataset import DatasetRequest
from tasks.planning.plan import EditPlan, Execution
from tasks.planning.prepare import prepare_edit
from tasks.planning.request import EditRequest
from tasks.planning.rows import order_by_source, read_rows

__all__ = [
    "plan_dataset_request",
    "plan_edit_request",
    "plan_evaluation_request",
    "planned",
    "planned_dataset",
    "planned_edit",
    "planned_rows",
]

if TYPE_CHECKING:
    import pandas as pd

    from tasks.evaluation.plan import EvaluationPlan
    from tasks.evaluation.request import EvaluationRequest

_PLANNED: ContextVar[EditPlan | None] = ContextVar("wave_planned_edit", default=None)
_PLANNED_ROWS: ContextVar[tuple[DatasetRequest, BulkPlan] | None] = ContextVar("wave_planned_rows", default=None)


def plan_edit_request(request: EditRequest, settings: WaveSettings) -> EditPlan:
    """Plan a request under the settings, writing nothing; see `prepare_edit` for the errors."""
    return prepare_edit(request, execution=_execution(settings), flow_weights=settings.flow_weights)


def plan_dataset_request(
    request: DatasetRequest, settings: WaveSettings, *, table: StatusTable, remember: bool = True
) -> BulkPlan:
    """Read, select and plan the rows of a data set, those of one source next to one another.

    Args:
        request: the data set.
        settings: where and how.
        table: the status of earlier runs.
        remember: whether facts about sources are stored; not in a dry run.

    Raises:
        TaskInputError: if the manifest has faults; see `read_rows`.
        WorkspaceError: if the workspace cannot be opened.
    """
    latest = table.latest()
    states = {row_key(record): str(record["state"]) for record in latest[["id", "variant", "state"]].to_dict("records")}
    rows = order_by_source(
        read_rows(request, known=states, own_tables=f"{Workspace.open(settings.workspace).url}/tables/status")
    )
    before = _identities(latest)
    return plan_rows(
        rows, execution=_execution(settings), flow_weights=settings.flow_weights, before=before, remember=remember
    )


def _identities(latest: pd.DataFrame) -> dict[tuple[str, int], dict[str, object]]:
    """Return the identity columns of rows that were done."""
    prefix = "manifest_identity_"
    columns = {name: name.removeprefix(prefix) for name in latest.columns if name.startswith(prefix)}
    done = latest[latest["state"] == "done"]
    values = done[list(columns)].rename(columns=columns).to_dict("records")
    return {
        row_key(key): {str(name): value for name, value in found.items()}
        for key, found in zip(done[["id", "variant"]].to_dict("records"), values, strict=True)
    }


def _execution(settings: WaveSettings) -> Execution:
    cuda = cuda_where_stages_run(settings)
    device = choose_device(settings.device, available=cuda)
    return Execution(
        workspace=settings.workspace,
        device=settings.device,
        dtype=choose_dtype(settings.dtype, device=device),
        keyframe_batch=settings.keyframe_batch,
        compiled=settings.compile_unet,
        memory_limit=settings.memory_limit,
        propagation=choose_backend(settings.propagation_device, device=device, available=cuda),
        limits=settings.limits,
    )


@contextmanager
def planned(plan: EditPlan) -> Iterator[None]:
    """Pass a plan on to the flow that is run in this context, which then does not plan again.

    The caller has checked that results can be written.
    """
    token = _PLANNED.set(plan)
    try:
        yield
    finally:
        _PLANNED.reset(token)


@contextmanager
def planned_rows(request: DatasetRequest, bulk: BulkPlan) -> Iterator[None]:
    """Pass the plan of a data set on to the flow that is run in this context, as `planned` does for one edit."""
    token = _PLANNED_ROWS.set((request, bulk))
    try:
        yield
    finally:
        _PLANNED_ROWS.reset(token)


def planned_dataset(request: DatasetRequest, settings: WaveSettings, *, table: StatusTable) -> BulkPlan:
    """Return the plan passed on with `planned_rows`, else check that results can be written, and plan.

    Raises:
        TaskInputError: see `plan_dataset_request`.
        WorkspaceError: if the workspace cannot be opened or written.
    """
    passed_on = _PLANNED_ROWS.get()
    if passed_on is not None and passed_on[0] == request:
        return passed_on[1]
    Workspace.open(settings.workspace).check_writable()
    return plan_dataset_request(request, settings, table=table)


def planned_edit(request: EditRequest, settings: WaveSettings) -> EditPlan:
    """Return the plan that the caller has passed on with `planned`, else plan and check that results can be written.

    Raises:
        TaskInputError, VideoError: see `prepare_edit`.
        WorkspaceError: if the workspace cannot be opened or written.
    """
    passed_on = _PLANNED.get()
    if passed_on is not None and passed_on.request == request:
        return passed_on
    plan = plan_edit_request(request, settings)
    Workspace.open(plan.execution.workspace).check_writable()
    return plan


def plan_evaluation_request(request: EvaluationRequest, settings: WaveSettings) -> EvaluationPlan:
    """Plan an evaluation under the settings of this machine; see `plan_evaluation` for the errors."""
    from tasks.evaluation.plan import plan_evaluation  # noqa: PLC0415  (takes seconds, and an edit needs none)

    device = choose_device(settings.device, available=cuda_where_stages_run(settings))
    dtype = choose_dtype(settings.dtype, device=device)
    execution = Execution(workspace=settings.workspace, device=device, dtype=dtype)
    return plan_evaluation(request, execution=execution, flow_weights=settings.flow_weights)
