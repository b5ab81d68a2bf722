"""`wave check`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.console import STDERR, STDOUT, app, say
from flows.cli.options import request_options
from tasks.planning.request import EditRequest, edit_request

__all__: list[str] = []


@app.command()
@request_options(EditRequest, only={"start", "end", "frames"})
def check(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The source clip.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The edited clip.")],
    mask: Annotated[
        Path | None,
        typer.Option(metavar="PICTURE", help="Picture or video that is bright where the edit may change something."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
    **fields: Any,
) -> None:
    """Check that an edited clip has the frames, times, size, audio and colour tags that its source asks for."""
    given = {name: value for name, value in fields.items() if value is not None}
    trim = edit_request(video=str(source), prompt="any", **given).trim
    from storage.video import check_video_pair

    with STDERR.status("Reading both clips"):
        checks, notes = check_video_pair(source, output, trim=trim, mask=mask)
    passed = all(each.passed for each in checks)
    if as_json:
        found = {"passed": passed, "checks": [asdict(each) for each in checks], "notes": notes}
        say(json.dumps({"source": str(source), "output": str(output), **found}))
    else:
        for each in checks:
            STDOUT.print("[green]ok[/]   " if each.passed else "[red]fail[/] ", end="")
            say(f"{each.name}: {each.source}; {each.output}")
        for note in notes:
            say(f"Note: {note}")
    if not passed:
        raise typer.Exit(1)
