"""What `wave evaluate` does on the terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable
from rich.text import Text

from flows.cli.tables import rich_table
from flows.evaluate import evaluate
from flows.planning import plan_evaluation_request
from flows.settings import WaveSettings
from tasks.evaluation.comparisons.registry import titles
from tasks.evaluation.plan import EvaluationPlan
from tasks.evaluation.publish import REPORT, check_folder
from tasks.evaluation.report.jsonl import lines_text, result_lines
from tasks.evaluation.report.tables import bars_table, measure_table
from tasks.evaluation.request import EvaluationRequest
from tasks.evaluation.results import Results
from tasks.progress import listening

__all__ = ["list_comparisons", "run_evaluation"]


def list_comparisons(console: Console) -> None:
    """Print the comparisons and what each asks."""
    table = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, title in titles().items():
        table.add_row(Text(name, style="bold"), Text(title))
    console.print(table)


def run_evaluation(
    request: EvaluationRequest,
    settings: WaveSettings,
    *,
    folder: Path,
    as_json: bool,
    consoles: tuple[Console, Console],
) -> None:
    """Run a comparison with a bar, then print its figures: tables, or lines of JSON and nothing else on stdout."""
    stdout, stderr = consoles
    check_folder(folder)
    with stderr.status("Planning"):
        plan = plan_evaluation_request(request, settings)
    with _bar(plan, stderr):
        results = evaluate(request, settings, str(folder.absolute()))
    if as_json:
        stdout.out(lines_text(result_lines(results)), end="", highlight=False)
    else:
        _print_tables(results, stdout)
    (stderr if as_json else stdout).print(f"The report is {folder / REPORT}", markup=False, soft_wrap=True)


def _print_tables(results: Results, console: Console) -> None:
    for table in (*(measure_table(results, measure) for measure in results.taken), bars_table(results)):
        if table is not None:
            console.print(rich_table(table))


@contextmanager
def _bar(plan: EvaluationPlan, console: Console) -> Iterator[None]:
    """Draw one bar over all clips and methods while they run in this process."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    total, done, lock = len(plan.clips) * len(plan.methods), dict[str, int](), threading.Lock()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(f"{plan.name} on {len(plan.clips)} clips", total=total)

        def hear(_stage: str, clip: str, methods: int, _total: int) -> None:
            with lock:
                done[clip] = methods
                progress.update(bar, completed=sum(done.values()))

        with listening(hear):
            yield
