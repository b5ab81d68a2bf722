"""`wave rehearse`."""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import STDERR, STDOUT, TracebacksOption, app

__all__: list[str] = []


@app.command()
def rehearse(
    rows: Annotated[int, typer.Option(min=16, metavar="N", help="Rows of the data set.")] = 60,
    postgres: Annotated[bool, typer.Option("--postgres", help="Prefect's database is PostgreSQL, not SQLite.")] = False,
    s3: Annotated[bool, typer.Option("--s3", help="The workspace is in an object store, SeaweedFS.")] = False,
    dask: Annotated[bool, typer.Option("--dask", help="Stages run on the workers of a Dask cluster.")] = False,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save pictures of Prefect's pages here, by Chromium.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep everything in this new folder; else it is removed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per metric and nothing else.")] = False,
    verbose: TracebacksOption = False,
) -> None:
    """Rehearse a bulk edit on this machine: kill workers and the server, resume, and check that nothing is lost.

    Everything runs on loopback, with drawn clips and the embedded model, in ten minutes or more. The exit code is 1 if
    a target is not met.
    """
    with STDERR.status("Loading"):
        from flows.cli.tables import rich_table
        from flows.rehearsal.dataset import draw_dataset
        from flows.rehearsal.drill import rehearse as run
        from flows.rehearsal.parts import RehearsalRequest, check_parts, own_environment, start_parts
        from flows.rehearsal.results import BENCH, TITLE, measure_story
        from tasks.errors import TaskInputError
        from tasks.evaluation.bench.measurements import bench_table, measurement_record
        from tasks.evaluation.report.jsonl import json_lines

    request = RehearsalRequest(rows=rows, postgres=postgres, s3=s3, dask=dask, pictures=pictures)
    check_parts(request)
    if folder is not None and folder.exists():
        raise TaskInputError(f"The folder {folder} exists: name a new one.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended then, too
    started = time.monotonic()

    def note(line: str) -> None:
        STDERR.print(f"{time.monotonic() - started:6.0f} s  {line}", markup=False, soft_wrap=True)

    with tempfile.TemporaryDirectory(prefix="wave-rehearsal-") as temporary:
        place = Path(temporary) / "rehearsal" if folder is None else folder.absolute()
        # Others may enter it: the database runs as a user of its own
        Path(temporary).chmod(0o755)
        data = draw_dataset(place / "clips", rows)
        with start_parts(request, place) as parts, own_environment(parts):
            story = run(request, parts, data, note)
            measured = list(measure_story(request.title, story, data))
    records = [measurement_record(BENCH, each) for each in measured]
    if as_json:
        STDOUT.out(json_lines(records), end="", highlight=False)
    else:
        STDOUT.print(rich_table(bench_table(TITLE, measured)))
    raise typer.Exit(int(any(record["holds"] is False for record in records)))
