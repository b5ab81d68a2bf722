"""`wave train-embedded`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.console import VerboseOption, app, connect, say
from flows.cli.options import request_options
from flows.settings import TrainSettings

__all__: list[str] = []


@app.command()
@request_options(TrainSettings, only=("seed", "minutes", "threads", "base"))
def train_embedded(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The model's folder.")] = Path(
        "embedded-model"
    ),
    work: Annotated[Path, typer.Option(metavar="DIR", help="Frames, latents and checkpoints, to resume from.")] = Path(
        "embedded-work"
    ),
    verbose: VerboseOption = False,
    **fields: Any,
) -> None:
    """Train the small model that is shipped, from random weights, or only its ControlNet."""
    connect(verbose=verbose)
    from flows.train_embedded import train_embedded as train

    folder = train(TrainSettings(output=str(output), work_folder=str(work), **fields))
    say(f"The model is in {folder}")
