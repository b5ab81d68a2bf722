"""`wave manifest`: a folder of videos, or a benchmark's prompt file, as a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import STDERR, TracebacksOption, app, say

__all__: list[str] = []


@app.command()
def manifest(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER", help="A folder of videos or a glob; a path or a URL. With --from, a prompt file."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The manifest: .csv, .tsv, .jsonl, .json or .parquet."),
    ],
    prompt: Annotated[
        str, typer.Option(help="Prompt of every row, kept as a template: {name}, {stem}, {folder}, {index}, {a|b|c}.")
    ] = "",
    probe: Annotated[
        bool, typer.Option("--probe", help="Open each clip, and add width, height, frame_count and duration (seconds).")
    ] = False,
    benchmark: Annotated[
        str, typer.Option("--from", metavar="NAME", help="Read a prompt file of five-bench, loveu-tgve or v2vbench.")
    ] = "",
    videos: Annotated[str, typer.Option(metavar="FOLDER", help="Where the videos of a prompt file are.")] = "",
    masks: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the masks of a prompt file's videos are, if any.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the manifest if there is one.")] = False,
    verbose: TracebacksOption = False,
) -> None:
    """Write the videos of a folder as a manifest, one row each; or the edits of a benchmark's prompt file."""
    from tasks.errors import TaskInputError
    from tasks.planning.benchmarks import benchmark_columns
    from tasks.planning.folder_manifest import FACTS, check_manifest_path, folder_columns, probed_columns
    from tasks.planning.manifest_table import write_table

    if benchmark and (prompt or not videos):
        raise TaskInputError(
            "--from takes the prompts of a file, and needs --videos for their videos, without --prompt."
        )
    if not benchmark and (videos or masks):
        raise TaskInputError("--videos and --masks belong to a prompt file; say which one by --from.")

    check_manifest_path(output, overwrite=overwrite)
    start = output.absolute().parent
    with STDERR.status("Listing"):
        if benchmark:
            columns = benchmark_columns(Path(folder), benchmark=benchmark, videos=videos, masks=masks, start=start)
        else:
            columns = folder_columns(folder, prompt=prompt, start=start, more=FACTS if probe else ())
    if probe:
        with STDERR.status("Probing"):
            columns, unread = probed_columns(columns, start=start)
        for reason in unread:
            STDERR.print(f"Not read: {reason}", markup=False, soft_wrap=True)
    write_table(output, columns)
    say(f"The manifest {output} has {len(columns['id'])} rows")
