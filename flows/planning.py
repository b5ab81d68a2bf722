"""Plans under the settings of this machine, without Prefect."""

from __future__ import annotations

from flows.settings import WaveSettings
from tasks.devices import choose_backend, choose_device, choose_dtype
from tasks.plan import Compute, EditPlan
from tasks.prepare import prepare_edit
from tasks.request import EditRequest

__all__ = ["plan_request"]


def plan_request(request: EditRequest, settings: WaveSettings) -> EditPlan:
    """Plan a request under the settings; see `prepare_edit` for the errors."""
    device = choose_device(settings.device)
    compute = Compute(
        workspace=settings.workspace,
        device=device,
        dtype=choose_dtype(settings.dtype, device=device),
        chunk_size=settings.chunk_size,
        propagation=choose_backend(settings.propagation_device, device=device),
    )
    return prepare_edit(request, compute=compute, flow_weights=settings.flow_weights)
