"""Plans under the settings of this machine, without Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from flows.settings import WaveSettings
from storage.workspace import Workspace
from tasks.evaluation.plan import EvaluationPlan, plan_evaluation
from tasks.evaluation.request import EvaluationRequest
from tasks.models.devices import choose_backend, choose_device, choose_dtype
from tasks.planning.plan import EditPlan, Execution
from tasks.planning.prepare import prepare_edit
from tasks.planning.request import EditRequest

__all__ = ["plan_edit_request", "plan_evaluation_request", "planned", "planned_edit"]

_PLANNED: ContextVar[EditPlan | None] = ContextVar("wave_planned_edit", default=None)


def plan_edit_request(request: EditRequest, settings: WaveSettings) -> EditPlan:
    """Plan a request under the settings, writing nothing; see `prepare_edit` for the errors."""
    device = choose_device(settings.device)
    execution = Execution(
        workspace=settings.workspace,
        device=device,
        dtype=choose_dtype(settings.dtype, device=device),
        keyframe_batch=settings.keyframe_batch,
        propagation=choose_backend(settings.propagation_device, device=device),
    )
    return prepare_edit(request, execution=execution, flow_weights=settings.flow_weights)


@contextmanager
def planned(plan: EditPlan) -> Iterator[None]:
    """Pass a plan on to the flow that is run in this context, which then does not plan again.

    Raises:
        WorkspaceError: if the plan's workspace cannot be written.
    """
    Workspace.open(plan.execution.workspace).check_writable()
    token = _PLANNED.set(plan)
    try:
        yield
    finally:
        _PLANNED.reset(token)


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
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device=device)
    execution = Execution(workspace=settings.workspace, device=device, dtype=dtype)
    return plan_evaluation(request, execution=execution, flow_weights=settings.flow_weights)
