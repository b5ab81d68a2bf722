"""What the rehearsal asks of Prefect's server, which may be away."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectException

from tasks.errors import TaskInputError

__all__ = ["Api"]

T = TypeVar("T")
_DEPLOYMENT: Final = "edit-dataset/dataset"
_AWAY_SECONDS: Final = 300.0


class Api:
    """The server that is set."""

    def wait(self, *, seconds: float = _AWAY_SECONDS) -> None:
        """Wait until the server answers and has the deployment.

        Raises:
            TaskInputError: if it takes too long.
        """
        _patiently(lambda client: client.read_deployment_by_name(_DEPLOYMENT), seconds=seconds)

    def start(self, request: dict[str, Any]) -> FlowRun:
        """Start a run of the deployment."""

        def create(client: SyncPrefectClient) -> FlowRun:
            deployment = client.read_deployment_by_name(_DEPLOYMENT)
            return client.create_flow_run_from_deployment(deployment.id, parameters={"request": request})

        return _patiently(create)

    def read(self, run: UUID) -> FlowRun:
        """Return a run as it is now."""
        return _patiently(lambda client: client.read_flow_run(run))

    def state(self, run: UUID) -> str:
        """Return the type of a run's state."""
        state = self.read(run).state
        return "" if state is None else state.type.value

    def started(self) -> list[FlowRun]:
        """Return the runs of the deployment that have started, the latest first."""
        return [run for run in self._runs(FlowRunSort.START_TIME_DESC) if run.start_time is not None]

    def children(self, run: UUID) -> int:
        """Return how many flow runs there are below a run, at most 200."""
        chosen = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
        return len(_patiently(lambda client: client.read_flow_runs(flow_run_filter=chosen, limit=200)))

    def switch_schedule(self, *, on: bool, request: dict[str, Any] | None = None) -> None:
        """Let the nightly schedule begin with the next minute, or switch it off."""

        def update(client: SyncPrefectClient) -> None:
            deployment = client.read_deployment_by_name(_DEPLOYMENT)
            (schedule,) = deployment.schedules
            options: dict[str, Any] = {}
            if on:
                options = {"schedule": CronSchedule(cron="* * * * *"), "parameters": {"request": request}}
            client.update_deployment_schedule(deployment.id, schedule.id, active=on, **options)

        _patiently(update)

    def _runs(self, sort: FlowRunSort) -> list[FlowRun]:
        def read(client: SyncPrefectClient) -> list[FlowRun]:
            deployment = client.read_deployment_by_name(_DEPLOYMENT)
            chosen = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]))
            return client.read_flow_runs(flow_run_filter=chosen, sort=sort, limit=200)

        return _patiently(read)


def _patiently(ask: Callable[[SyncPrefectClient], T], *, seconds: float = _AWAY_SECONDS) -> T:
    """Ask the server again and again while it is away.

    Raises:
        TaskInputError: if it stays away.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # A server that starts has no deployment yet, and answers with an error while its database is created
        with suppress(httpx.HTTPError, PrefectException, RuntimeError), get_client(sync_client=True) as client:
            return ask(client)
        time.sleep(1)
    raise TaskInputError(f"The Prefect server of the rehearsal did not answer within {seconds:.0f} s.")
