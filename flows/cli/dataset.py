"""`wave dataset`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from flows.cli.console import (
    STDERR,
    STDOUT,
    FlowWeightsOption,
    MemoryLimitOption,
    NothingStarted,
    VerboseOption,
    WorkspaceOption,
    app,
    connect,
    read_settings,
    say,
)
from flows.cli.options import request_options
from tasks.planning.dataset import DatasetRequest, dataset_request, load_dataset_settings

if TYPE_CHECKING:
    from flows.settings import WaveSettings
    from tasks.planning.bulk import BulkPlan

__all__ = ["plan", "run"]


@app.command()
@request_options(
    DatasetRequest,
    only=set(DatasetRequest.model_fields) - {"defaults"},
    metavars={"output": "DIR", "where": "EXPR", "limit": "N", "shard": "I/N"},
)
def dataset(
    source: Annotated[str, typer.Argument(metavar="MANIFEST|FOLDER", help="A manifest, a folder or a glob of videos.")],
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings of the data set, TOML or YAML; options go first.")
    ] = None,
    set_default: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of wave edit for all rows; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be computed, and an estimate.")] = False,
    flow_weights: FlowWeightsOption = None,
    workspace: WorkspaceOption = None,
    memory_limit: MemoryLimitOption = None,
    verbose: VerboseOption = False,
    **fields: Any,
) -> None:
    """Edit many clips: the rows of a manifest, or every video of a folder.

    The exit code is 0 if all rows are done, 1 if some failed, and 2 if nothing could start.
    """
    with _before_anything_runs():
        request = _request(source, settings, set_default or [], fields)
        chosen = read_settings(workspace=workspace, flow_weights=flow_weights, memory_limit=memory_limit)
        bulk = plan(request, chosen, remember=not dry_run)
        if dry_run:
            _show(bulk)
            say(f"The workspace is {bulk.execution.workspace}")
            return
        connect(verbose=verbose)
    raise typer.Exit(run(request, bulk, chosen))


@contextmanager
def _before_anything_runs() -> Iterator[None]:
    """Let the command end with its own exit code on an error in this context."""
    try:
        yield
    except ValueError as error:  # the base of every error that the packages raise on purpose
        raise NothingStarted(error) from error


def plan(request: DatasetRequest, settings: WaveSettings, *, remember: bool = True) -> BulkPlan:
    """Plan a data set; unless facts are to be remembered, nothing is written.

    Raises:
        TaskInputError: if the manifest has faults.
        WorkspaceError: if the workspace cannot be opened, or not be written although facts are to be remembered.
    """
    from storage.status_table import StatusTable
    from storage.workspace import Workspace
    from tasks.planning.dataset import dataset_name

    opened = Workspace.open(settings.workspace)
    with STDERR.status("Planning"):
        from flows.planning import plan_dataset_request

        table = StatusTable(opened, dataset_name(request.source))
        bulk = plan_dataset_request(request, settings, table=table, remember=remember)
    if remember:
        opened.check_writable()
    return bulk


def run(request: DatasetRequest, bulk: BulkPlan, settings: WaveSettings) -> int:
    """Run the flow on a plan with a progress bar, print the result, and return the exit code."""
    from flows.edit_dataset import edit_dataset
    from flows.planning import planned_rows
    from flows.settings import using_settings
    from tasks.planning.disk_note import dataset_disk_note

    if note := dataset_disk_note(bulk):
        STDERR.print(f"Note: {note}", markup=False, soft_wrap=True)
    with _bar(len(bulk.rows)), using_settings(settings), planned_rows(request, bulk):
        result = edit_dataset(request)
    say(str(result))
    if result.failed:
        say(f"The failed rows are in {result.failed}")
    return result.exit_code


def _request(source: str, settings: Path | None, defaults: list[str], fields: dict[str, Any]) -> DatasetRequest:
    """Combine options with the settings file: an option that is given goes first."""
    given = {} if settings is None else load_dataset_settings(settings)
    shown = {name: DatasetRequest.model_fields[name].default for name in fields}
    given |= {name: value for name, value in fields.items() if value is not None and value != shown[name]}
    if defaults:
        pairs = dict(_pair(text) for text in defaults)
        given["defaults"] = {**given.get("defaults", {}), **pairs}
    return dataset_request(**{**given, "source": source})


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not of the form NAME=VALUE", param_hint="--set")
    return name.strip().replace("-", "_"), value.strip()


def _show(bulk: BulkPlan) -> None:
    """Print a plan, and what it will take."""
    from flows.cli.tables import estimate_table
    from storage.workspace import Workspace
    from tasks.planning.estimate import estimate_dataset, read_costs

    costs = read_costs(Workspace.open(bulk.execution.workspace))
    STDOUT.print(_plan_table(bulk))
    STDOUT.print(estimate_table(estimate_dataset(bulk, costs)))


def _plan_table(bulk: BulkPlan) -> Table:
    """Lay out a plan: rows by what happens to them, and how many results of each stage are shared."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    complete = sum(item.complete for item in bulk.rows)
    table.add_row("rows", str(len(bulk.rows)))
    table.add_row("complete", str(complete))
    table.add_row("cannot be edited", str(sum(bool(item.error) for item in bulk.rows)))
    table.add_row("to compute", str(len(bulk.to_run)))
    for reason, count in bulk.reasons.most_common():
        table.add_row(f"  {reason}", str(count))
    for stage, (distinct, needed) in bulk.computed_stages.items():
        table.add_row(stage.replace("_", " "), f"{distinct} for {needed} rows" if distinct < needed else str(distinct))
    return table


@contextmanager
def _bar(total: int) -> Iterator[None]:
    """Draw one bar over all rows."""
    from tasks.progress import listening

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=STDERR) as progress:
        bar = progress.add_task("rows", total=total)

        def listen(stage: str, _part: str, done: int, _total: int) -> None:
            if stage == "rows":
                progress.update(bar, completed=done)

        with listening(listen):
            yield
