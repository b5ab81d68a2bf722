"""`wave drill`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from flows.cli.console import STDERR, STDOUT, TracebacksOption, app, say

__all__: list[str] = []


@app.command()
def drill(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per fault and nothing else.")] = False,
    verbose: TracebacksOption = False,
) -> None:
    """Edit a tiny clip while its storage fails in every way, resume each time, and check that nothing is lost.

    It takes some minutes. The exit code is 1 if an edit is not that of a quiet run, or computed something twice.
    """
    with STDERR.status("Loading"):
        from rich.table import Table

        from flows.drill import run_drill

    outcomes = []
    with STDERR.status("Failing and resuming"):
        for outcome in run_drill():
            outcomes.append(outcome)
            if as_json:
                say(json.dumps(asdict(outcome)))
    if not as_json:
        table = Table("fault", "runs that it ended", "jobs computed twice", "frames of the quiet run")
        for each in outcomes:
            table.add_row(each.fault, str(each.failed), str(each.twice), "yes" if each.same else "no")
        STDOUT.print(table)
    raise typer.Exit(int(not all(each.passed for each in outcomes)))
