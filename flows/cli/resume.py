"""`wave resume`: run again what a flow run was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from flows.cli.console import VerboseOption, app, connect, say
from flows.settings import WaveSettings, load_settings
from tasks.errors import TaskInputError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

__all__: list[str] = []


@app.command()
def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id or name of a flow run; the latest of that name.")],
    verbose: VerboseOption = False,
) -> None:
    """Run again what an edit or a data set was given, so that only what is missing is computed.

    The run of a deployment starts again on its workers, any other run in this process; then relative paths count from
    this folder.
    """
    if not connect(verbose=verbose):
        raise TaskInputError("No Prefect server that knows the run was found: run wave serve, or set PREFECT_API_URL.")
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = _find(client, run)
        flow_name = client.read_flow(found.flow_id).name
        _check(found, flow_name)
        if found.deployment_id is not None:
            again = client.create_flow_run_from_deployment(
                found.deployment_id, parameters=found.parameters, name=found.name, tags=[*found.tags]
            )
            say(f"The run {again.name} is scheduled again: {again.id}")
            return
    raise typer.Exit(_run_here(flow_name, found.parameters))


def _find(client: SyncPrefectClient, run: str) -> FlowRun:
    """Return the flow run of an id, or the latest one of a name.

    Raises:
        TaskInputError: if there is none.
    """
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    try:
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run)]))
    except ValueError:
        chosen = FlowRunFilter(name=FlowRunFilterName(any_=[run]))
    found = client.read_flow_runs(flow_run_filter=chosen, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)
    if not found:
        raise TaskInputError(f"The Prefect server knows no flow run {run!r}.")
    return found[0]


def _check(run: FlowRun, flow_name: str) -> None:
    """Check that a run can be resumed.

    Raises:
        TaskInputError: if not.
    """
    if flow_name not in {"edit-video", "edit-dataset"}:
        raise TaskInputError(f"The run {run.name} is of the flow {flow_name}; edits and data sets can be resumed.")
    if run.state is None or not run.state.is_final():
        state = "not started" if run.state is None else run.state.type.value.lower()
        raise TaskInputError(
            f"The run {run.name} is {state}: wait until it ends, or cancel it; one that lost its machine is marked"
            " crashed within minutes."
        )


def _run_here(flow_name: str, parameters: dict[str, Any]) -> int:
    """Run a flow in this process and print its result; return the exit code."""
    settings = _settings(parameters)
    if flow_name == "edit-video":
        from flows.cli.edit import plan
        from flows.cli.edit import run as run_edit
        from flows.cli.output import deliver
        from tasks.planning.request import edit_request

        planned = plan(edit_request(**parameters["request"]), settings)
        run_edit(planned, settings, verbose=False)
        say(f"The edited clip is {deliver(planned, None)}")
        return 0
    from flows.cli.dataset import plan as plan_rows
    from flows.cli.dataset import run as run_rows
    from tasks.planning.dataset import dataset_request

    request = dataset_request(**parameters["request"])
    return run_rows(request, plan_rows(request, settings), settings)


def _settings(parameters: dict[str, Any]) -> WaveSettings:
    """Return the settings of a run: those recorded with it, else those of the environment."""
    recorded = parameters.get("settings") or {}
    return load_settings(**{name: value for name, value in recorded.items() if value is not None})
