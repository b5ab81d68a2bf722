"""`wave bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import STDERR, STDOUT, TracebacksOption, app

__all__: list[str] = []


@app.command()
def bench(
    name: Annotated[str, typer.Argument(metavar="BENCH", help="core, memory, propagation, orchestration or scale.")],
    ebsynth_pairs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pairs with EbSynth's results; else pairs are drawn.")
    ] = None,
    video: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A video to measure as well; may be repeated.")
    ] = None,
    contact_sheets: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write contact sheets of the videos, or of a drawn scene, here.")
    ] = None,
    section: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Measure only this, such as planning; may be repeated."),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rows of the data sets of orchestration and scale.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, metavar="N", help="GPUs of scale; its stages sleep.")] = 8,
    gpu_seconds: Annotated[float, typer.Option(min=0.1, metavar="S", help="Of a clip in scale, on a GPU.")] = 30.0,
    cpu_seconds: Annotated[float, typer.Option(min=0, metavar="S", help="Of a clip in scale, on a CPU.")] = 30.0,
    s3: Annotated[bool, typer.Option("--s3", help="The workspace of scale is in an object store, SeaweedFS.")] = False,
    seconds: Annotated[int, typer.Option(min=1, metavar="S", help="Of the clip of memory.")] = 600,
    device: Annotated[str, typer.Option(help="Of core: cpu, cuda or auto.")] = "cpu",
    keyframes: Annotated[str, typer.Option(metavar="N,N", help="Numbers of keyframes of core, such as 8,64,512.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, to check that it runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per metric and nothing else.")] = False,
    verbose: TracebacksOption = False,
) -> None:
    """Measure speed, memory and accuracy against their targets: as a table, or as JSON lines while it runs."""
    with STDERR.status("Loading"):
        from flows.cli.tables import rich_table
        from tasks.evaluation.bench import registry
        from tasks.evaluation.bench.measurements import (
            BenchRequest,
            Measurement,
            bench_table,
            chosen_sections,
            measurement_record,
            whole_numbers,
        )
        from tasks.evaluation.report.jsonl import json_lines

    request = BenchRequest(
        ebsynth_pairs=ebsynth_pairs,
        quick=quick,
        videos=tuple(video or ()),
        contact_sheets=contact_sheets,
        rows=rows,
        gpus=gpus,
        gpu_seconds=gpu_seconds,
        cpu_seconds=cpu_seconds,
        s3=s3,
        seconds=seconds,
        device=device,
        keyframes=whole_numbers(keyframes),
    )
    with STDERR.status("Preparing"):
        found = registry.bench(name)
        sections = chosen_sections(found.sections(request), section or ())
    measured: list[Measurement] = []
    for each in sections:
        with STDERR.status(f"Measuring {each.title}"):
            for measurement in each.measure():
                measured.append(measurement)
                if as_json:
                    STDOUT.out(json_lines([measurement_record(found.name, measurement)]), end="", highlight=False)
    if not as_json:
        STDOUT.print(rich_table(bench_table(found.title, measured)))
