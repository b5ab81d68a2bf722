"""`wave bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import STDERR, STDOUT, TracebacksOption, app

__all__: list[str] = []


@app.command()
def bench(
    name: Annotated[str, typer.Argument(metavar="BENCH", help="What to measure: propagation.")],
    ebsynth_pairs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pairs that EbSynth was run on; else pairs are drawn.")
    ] = None,
    video: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A video to measure as well; may be repeated.")
    ] = None,
    contact_sheets: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write contact sheets of the videos, or of a drawn scene, here.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, to see that it runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per metric and nothing else.")] = False,
    verbose: TracebacksOption = False,
) -> None:
    """Measure speed, memory and exactness against their targets: a table, or lines of JSON as they are measured."""
    with STDERR.status("Loading"):
        from flows.cli.tables import rich_table
        from tasks.evaluation.bench import registry
        from tasks.evaluation.bench.figures import BenchRequest, Figure, bench_line, bench_table
        from tasks.evaluation.report.jsonl import lines_text

    request = BenchRequest(reference=ebsynth_pairs, quick=quick, clips=tuple(video or ()), sheets=contact_sheets)
    with STDERR.status("Preparing"):
        found = registry.bench(name)
        sections = found.sections(request)
    measured: list[Figure] = []
    for section in sections:
        with STDERR.status(f"Measuring {section.title}"):
            for measurement in section.figures():
                measured.append(measurement)
                if as_json:
                    STDOUT.out(lines_text([bench_line(found.name, measurement)]), end="", highlight=False)
    if not as_json:
        STDOUT.print(rich_table(bench_table(found.title, measured)))
