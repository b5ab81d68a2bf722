"""The deployments: which flows can be started from Prefect's UI and on a schedule, and under which names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from flows.edit_dataset import edit_dataset
from flows.edit_video import edit_video
from flows.evaluate import evaluate

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

__all__ = ["DEPLOYMENTS", "NIGHTLY", "POOL", "DeploymentSpec", "create_deployments"]

POOL: Final = "wave"
"""The work pool of processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """A deployment: a flow, and its name in Prefect."""

    name: str
    flow: Flow[Any, Any]
    description: str
    nightly: bool = False
    """Whether it has the nightly schedule."""

    @property
    def entrypoint(self) -> str:
        """Return where a worker imports the flow from."""
        return f"{self.flow.fn.__module__}.{self.flow.fn.__name__}"


DEPLOYMENTS: Final = (
    DeploymentSpec(name="edit", flow=edit_video, description="Edit one clip by text."),
    DeploymentSpec(
        name="dataset",
        flow=edit_dataset,
        description="Edit the rows of a manifest, or every video of a folder: only what is not complete.",
        nightly=True,
    ),
    DeploymentSpec(name="evaluate", flow=evaluate, description="Compare methods on the same clips."),
)
NIGHTLY: Final = {
    "slug": "nightly",
    "cron": "0 2 * * *",
    "timezone": "UTC",
    "active": False,
    "parameters": {"request": {"source": "clips.csv"}},
}
"""The schedule of the data set: off until a person states the source and switches it on."""


def create_deployments(folder: Path) -> list[str]:
    """Create the work pool and the deployments on the server that is set, or bring them up to date.

    A schedule that exists stays as it is, with what a person has changed of it.

    Args:
        folder: the working directory of the runs; relative paths in a request count from it.

    Returns:
        The full names of the deployments.
    """
    with get_client(sync_client=True) as client:
        _ensure_pool(client)
        for spec in DEPLOYMENTS:
            _deployment(spec, folder, before=_read(client, spec)).apply()
    return [_full_name(spec) for spec in DEPLOYMENTS]


def _full_name(spec: DeploymentSpec) -> str:
    return f"{spec.flow.name}/{spec.name}"


def _ensure_pool(client: SyncPrefectClient) -> None:
    template = ProcessWorker.get_default_base_job_template()
    try:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    except ObjectAlreadyExists:
        return


def _read(client: SyncPrefectClient, spec: DeploymentSpec) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(_full_name(spec))
    except ObjectNotFound:
        return None


def _deployment(spec: DeploymentSpec, folder: Path, *, before: DeploymentResponse | None) -> RunnerDeployment:
    made: Any = spec.flow.to_deployment(
        name=spec.name,
        description=spec.description,
        tags=["wave"],
        work_pool_name=POOL,
        job_variables={"working_dir": str(folder)},
        entrypoint_type=EntrypointType.MODULE_PATH,
        paused=before is not None and before.paused,
    )
    deployment: RunnerDeployment = made
    deployment.schedules = [*_schedules(spec, before)]
    return deployment


def _schedules(spec: DeploymentSpec, before: DeploymentResponse | None) -> list[DeploymentScheduleCreate]:
    if before is not None and before.schedules:
        fields = {"schedule", "active", "parameters", "slug"}
        return [DeploymentScheduleCreate(**each.model_dump(include=fields)) for each in before.schedules]
    return [_nightly()] if spec.nightly else []


def _nightly() -> DeploymentScheduleCreate:
    given: dict[str, Any] = dict(NIGHTLY)
    schedule = CronSchedule(cron=given.pop("cron"), timezone=given.pop("timezone"))
    return DeploymentScheduleCreate(schedule=schedule, **given)
