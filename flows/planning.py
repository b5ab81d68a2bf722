"""Plans under the settings of this machine, without Prefect."""

from __future__ import annotations

from flows.settings import WaveSettings
from tasks.evaluation.plan import EvaluationPlan, plan_evaluation
from tasks.evaluation.request import EvaluationRequest
from tasks.models.devices import choose_backend, choose_device, choose_dtype
from tasks.planning.plan import EditPlan, Execution
from tasks.planning.prepare import prepare_edit
from tasks.planning.request import EditRequest

__all__ = ["plan_edit_request", "plan_evaluation_request"]


def plan_edit_request(request: EditRequest, settings: WaveSettings) -> EditPlan:
    """Plan a request under the settings; see `prepare_edit` for the errors."""
    device = choose_device(settings.device)
    execution = Execution(
        workspace=settings.workspace,
        device=device,
        dtype=choose_dtype(settings.dtype, device=device),
        keyframe_batch=settings.keyframe_batch,
        propagation=choose_backend(settings.propagation_device, device=device),
    )
    return prepare_edit(request, execution=execution, flow_weights=settings.flow_weights)


def plan_evaluation_request(request: EvaluationRequest, settings: WaveSettings) -> EvaluationPlan:
    """Plan an evaluation under the settings of this machine; see `plan_evaluation` for the errors."""
    device = choose_device(settings.device)
    execution = Execution(
        workspace=settings.workspace, device=device, dtype=choose_dtype(settings.dtype, device=device)
    )
    return plan_evaluation(request, execution=execution, flow_weights=settings.flow_weights)
