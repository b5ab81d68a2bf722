"""Automations on the server: mark runs that died, and report data sets that have ended to a webhook."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore, EventTrigger, Posture, emit_event
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from pydantic import SecretStr

from flows.settings import LOST_AFTER_SECONDS, START_SECONDS, load_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

__all__ = ["FLOW_NAMES", "crash_automations", "ensure_automations", "webhook_automation"]

FLOW_NAMES: Final = ("edit-video", "edit-dataset", "evaluate", "train-embedded")
"""Flows that the automations watch. Those of other projects on the same server may have slower heartbeats."""
_WEBHOOK: Final = "wave-webhook"
_REPORT: Final = "wave: report data sets"
_ENDED: Final = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
_OPEN: Final = {kind: f"wave.flow-run.found-{kind.value.lower()}" for kind in (StateType.RUNNING, StateType.PENDING)}
"""Events that stand for those which a server that was away has not seen, by the state of a run."""
_PAGE: Final = 200
_HEARTBEAT: Final = "prefect.flow-run.heartbeat"
_PAYLOAD: Final = (
    '{"event": {{ event.event | tojson }}, "dataset": {{ event.resource.name | tojson }}, '
    '"text": {{ event.payload.text | tojson }}, "counts": {{ event.payload | tojson }}}'
)


def ensure_automations(
    webhook: str | None = None, lost_after: float = LOST_AFTER_SECONDS, *, start_within: float = START_SECONDS
) -> list[str]:
    """Create the automations on the server that is set, or bring those that exist up to date.

    An automation that a person has switched off stays off. Without a webhook, none is called any more. Runs that have
    not ended are watched from now on, as if they had just sent a heartbeat: a server that was away has forgotten them.
    It can be a step in prefect.yaml.

    Args:
        webhook: URL to call when the run of a data set has ended; by default the one of the settings.
        lost_after: seconds without a heartbeat after which a run is marked as crashed; more than the time between two
            heartbeats (HEARTBEAT_SECONDS).
        start_within: seconds after a worker of processes has taken a run in which it must begin; else it is marked.

    Returns:
        The names of the automations.

    Raises:
        TaskInputError: if the settings are read and one is wrong.
    """
    webhook = load_settings().webhook if webhook is None else webhook
    with get_client(sync_client=True) as client:
        wanted = crash_automations(lost_after, start_within)
        if webhook:
            wanted = [*wanted, webhook_automation(_save_webhook(webhook))]
        else:
            _delete(client, client.read_automations_by_name(_REPORT))
        for automation in wanted:
            _ensure(client, automation)
        _watch_open_runs(client)
    return [automation.name for automation in wanted]


def crash_automations(
    lost_after: float = LOST_AFTER_SECONDS, start_within: float = START_SECONDS
) -> list[AutomationCore]:
    """Describe the automations that mark a run as crashed after its process and its worker have died.

    A run that has ended cannot be marked: Prefect refuses to make a crashed run of it. A worker that is alive reports
    the death of its process itself, within seconds.
    """
    lost = EventTrigger(
        after={_HEARTBEAT, _OPEN[StateType.RUNNING]},
        expect={_HEARTBEAT, *_ENDED},
        match_related=_related(_FLOW),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=lost_after),
    )
    # Only where the worker starts a process: a container or a pod may wait much longer for its machine
    stuck = lost.model_copy(
        update={
            "after": {"prefect.flow-run.Pending", _OPEN[StateType.PENDING]},
            "expect": {"prefect.flow-run.Running", _HEARTBEAT, *_ENDED},
            "match_related": _related(_FLOW, _PROCESS_POOL),
            "within": timedelta(seconds=start_within),
        }
    )
    return [
        _marking("wave: mark lost runs as crashed", lost, f"No heartbeat for {lost_after:.0f} s: its process is gone."),
        _marking(
            "wave: mark runs that never began as crashed", stuck, f"It did not begin within {start_within:.0f} s."
        ),
    ]


def webhook_automation(block_id: Any) -> AutomationCore:
    """Describe the automation that sends what became of a data set to a webhook block."""
    return AutomationCore(
        name=_REPORT,
        description="Calls the webhook when the run of a data set has ended.",
        trigger=EventTrigger(
            expect={"wave.dataset.finished", "wave.dataset.failing"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[CallWebhook(block_document_id=block_id, payload=_PAYLOAD)],
    )


_FLOW: Final[dict[str, Any]] = {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOW_NAMES)}
_PROCESS_POOL: Final[dict[str, Any]] = {"prefect.resource.role": "work-pool", "prefect.work-pool.type": "process"}


def _related(*specifications: dict[str, Any]) -> Any:
    return EventTrigger(match_related=list(specifications)).match_related


def _marking(name: str, trigger: EventTrigger, message: str) -> AutomationCore:
    return AutomationCore(
        name=name,
        description="Finds runs of which the process and the worker have died.",
        trigger=trigger,
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message, force=False)],
    )


def _watch_open_runs(client: SyncPrefectClient) -> None:
    """Start the clock of every run that has not ended."""
    for kind, event in _OPEN.items():
        for run in _open_runs(client, kind):
            related = [_resource("flow", client.read_flow(run.flow_id).name)]
            if run.work_pool_name is not None:
                pool = client.read_work_pool(run.work_pool_name)
                related.append(_resource("work-pool", pool.name) | {"prefect.work-pool.type": pool.type})
            emit_event(event, resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"}, related=related)


def _resource(role: str, name: str) -> dict[str, str]:
    return {"prefect.resource.id": f"wave.{role}.{name}", "prefect.resource.role": role, "prefect.resource.name": name}


def _open_runs(client: SyncPrefectClient, kind: StateType) -> list[FlowRun]:
    """Return the runs of this project's flows that are in a state."""
    found: list[FlowRun] = []
    while True:
        page = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOW_NAMES))),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[kind]))),
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return found


def _save_webhook(url: str) -> Any:
    """Store the URL as a block, and return the block's id."""
    # The URL is set by whoever runs the server, so a private address is as good as any
    block = Webhook(
        url=SecretStr(url),
        headers={"Content-Type": "application/json"},  # type: ignore[arg-type]  # pydantic makes a secret of it
        allow_private_urls=True,
    )
    return block.save(_WEBHOOK, overwrite=True)


def _ensure(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Leave exactly one automation of this name on the server."""
    found = client.read_automations_by_name(automation.name)
    _delete(client, found[1:])
    if not found:
        client.create_automation(automation)
        return
    wanted = automation.model_copy(update={"enabled": all(each.enabled for each in found)})
    if AutomationCore(**found[0].model_dump(include=set(AutomationCore.model_fields))) != wanted:
        client.update_automation(found[0].id, wanted)


def _delete(client: SyncPrefectClient, automations: Sequence[Any]) -> None:
    for automation in automations:
        client.delete_automation(automation.id)
