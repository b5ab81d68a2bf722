"""`wave evaluate`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable
from rich.text import Text

from flows.cli.console import (
    STDERR,
    STDOUT,
    FlowWeightsOption,
    VerboseOption,
    WorkspaceOption,
    app,
    connect,
    read_settings,
)
from flows.cli.options import request_options
from tasks.evaluation.request import EvaluationRequest, evaluation_request

if TYPE_CHECKING:
    from flows.settings import WaveSettings
    from tasks.evaluation.plan import EvaluationPlan
    from tasks.evaluation.results import Results

__all__: list[str] = []


@app.command()
@request_options(
    EvaluationRequest,
    metavars={"method": "NAME", "manifest": "FILE", "clips": "N", "clip_model": "SPEC", "lora": "FILE[:WEIGHT]"},
)
def evaluate(
    comparison: Annotated[str | None, typer.Argument(help="The comparison; without it, all are listed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per metric and nothing else.")] = False,
    flow_weights: FlowWeightsOption = None,
    workspace: WorkspaceOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for tables and report.")
    ] = None,
    verbose: VerboseOption = False,
    **fields: Any,
) -> None:
    """Compare methods on the same clips, drawn or your own."""
    if comparison is None:
        _list_comparisons()
        return
    fields |= {name: tuple(fields[name] or ()) for name in ("method", "lora")}
    request = evaluation_request(comparison=comparison, **fields)
    settings = read_settings(workspace=workspace, flow_weights=flow_weights)
    connect(verbose=verbose)
    _run(request, settings, folder=output or Path("evaluation", comparison), as_json=as_json)


def _list_comparisons() -> None:
    """Print the comparisons and the question that each answers."""
    from tasks.evaluation.comparisons.registry import titles

    table = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, title in titles().items():
        table.add_row(Text(name, style="bold"), Text(title))
    STDOUT.print(table)


def _run(request: EvaluationRequest, settings: WaveSettings, *, folder: Path, as_json: bool) -> None:
    """Run a comparison with a progress bar, then print its metrics: as tables, or as JSON lines only."""
    from flows.evaluate import evaluate as run_comparison
    from flows.planning import plan_evaluation_request
    from tasks.evaluation.report.jsonl import json_lines, result_records
    from tasks.evaluation.report.publish import REPORT, check_folder

    check_folder(folder)
    with STDERR.status("Planning"):
        plan = plan_evaluation_request(request, settings)
    with _bar(plan):
        results = run_comparison(request, settings, str(folder.absolute()))
    if as_json:
        STDOUT.out(json_lines(result_records(results)), end="", highlight=False)
    else:
        _print_tables(results)
    (STDERR if as_json else STDOUT).print(f"The report is {folder / REPORT}", markup=False, soft_wrap=True)


def _print_tables(results: Results) -> None:
    from flows.cli.tables import rich_table
    from tasks.evaluation.report.tables import measure_table, targets_table

    for table in (*(measure_table(results, measure) for measure in results.measured), targets_table(results)):
        if table is not None:
            STDOUT.print(rich_table(table))


@contextmanager
def _bar(plan: EvaluationPlan) -> Iterator[None]:
    """Draw one bar over all clips and methods while they run in this process."""
    from tasks.progress import listening

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    total, done, lock = len(plan.clips) * len(plan.methods), dict[str, int](), threading.Lock()
    with Progress(*columns, console=STDERR) as progress:
        bar = progress.add_task(f"{plan.name} on {len(plan.clips)} clips", total=total)

        def listen(_stage: str, clip: str, methods: int, _total: int) -> None:
            with lock:
                done[clip] = methods
                progress.update(bar, completed=sum(done.values()))

        with listening(listen):
            yield
