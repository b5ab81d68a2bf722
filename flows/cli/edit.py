"""`wave edit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import (
    STDERR,
    STDOUT,
    FlowWeightsOption,
    MemoryLimitOption,
    VerboseOption,
    WorkspaceOption,
    app,
    connect,
    read_settings,
    say,
)
from flows.cli.formats import output_format
from flows.cli.options import request_options
from tasks.planning.request import EditRequest, edit_request

if TYPE_CHECKING:
    from flows.settings import WaveSettings
    from tasks.planning.plan import EditPlan

__all__ = ["plan", "run"]


@app.command()
@request_options(
    EditRequest,
    metavars={
        "size": "WxH",
        "set": "NAME=VALUE",
        "lora": "FILE[:WEIGHT]",
        "controlnet": "[KIND=]SPEC[:WEIGHT[:FROM-TO]]",
        "control": "KIND=VIDEO",
    },
)
def edit(
    video: Annotated[
        str,
        typer.Argument(
            metavar="IN.mp4", help="The source clip: a file, an fsspec URL, or a folder or glob of pictures."
        ),
    ],
    flow_weights: FlowWeightsOption = None,
    workspace: WorkspaceOption = None,
    memory_limit: MemoryLimitOption = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT.mp4",
            help="Copy the result here, a path or a URL: its ending chooses the format, / a folder of pictures.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that this edit has not made.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what is stored of it.")] = False,
    verbose: VerboseOption = False,
    **fields: Any,
) -> None:
    """Edit a clip by text."""
    fields["format"] = output_format(output, chosen=fields["format"])
    request = edit_request(video=video, **{name: value for name, value in fields.items() if value is not None})
    from flows.cli.output import check_output, check_overwrite, deliver, report_notes
    from storage.limits import using_limits
    from tasks.planning.input_video import check_video, kept_downloads
    from tasks.planning.prepare import replan

    chosen = read_settings(workspace=workspace, flow_weights=flow_weights, memory_limit=memory_limit)
    with using_limits(chosen.limits):
        check_video(request.video, rate=request.picture_rate)
    check_output(output, video=request.video, overwrite=overwrite)
    with kept_downloads():
        planned = plan(request, chosen)
        check_overwrite(planned, output, overwrite=overwrite)
        if dry_run:
            _print_plan(planned)
            say(f"The workspace is {planned.execution.workspace}")
            return
        run(planned, chosen, verbose=verbose)
        planned = replan(planned)
    for note in report_notes(planned):
        say(f"Note: {note}")
    say(f"The edited clip is {deliver(planned, output)}")


def _print_plan(planned: EditPlan) -> None:
    """Print what is stored of an edit, and what the rest will take."""
    from flows.cli.tables import complete_stages, estimate_table, plan_table, stored_results
    from storage.workspace import Workspace
    from tasks.planning.estimate import estimate_edit, read_costs

    stored = stored_results(planned)
    costs = read_costs(Workspace.open(planned.execution.workspace))
    STDOUT.print(plan_table(planned, stored))
    STDOUT.print(estimate_table(estimate_edit(planned, costs, complete=complete_stages(stored))))


def plan(request: EditRequest, settings: WaveSettings) -> EditPlan:
    """Plan a request; nothing is written."""
    with STDERR.status("Planning"):
        from flows.planning import plan_edit_request

        return plan_edit_request(request, settings)


def run(plan: EditPlan, settings: WaveSettings, *, verbose: bool) -> None:
    """Run the flow on a plan, with a progress bar for each stage."""
    from storage.workspace import Workspace
    from tasks.planning.disk_note import edit_disk_note

    Workspace.open(plan.execution.workspace).check_writable()
    if note := edit_disk_note(plan):
        say(f"Note: {note}")
    connect(verbose=verbose)
    from flows.cli.progress import stage_bars
    from flows.edit_video import edit_video
    from flows.planning import planned

    with stage_bars(plan, console=STDERR), planned(plan):
        edit_video(plan.request, settings)
