"""The application, and what its subcommands share: consoles, common options, the connection to Prefect."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import described
from flows.settings import WaveSettings, load_settings

__all__ = [
    "STDERR",
    "STDOUT",
    "FlowWeightsOption",
    "MemoryLimitOption",
    "NothingStarted",
    "TracebacksOption",
    "VerboseOption",
    "WorkspaceOption",
    "app",
    "connect",
    "read_settings",
    "say",
]

app = typer.Typer(
    help="Edit videos by text.", add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)
_UNFOLDED = 240
"""Columns where stdout is not a terminal: a file has no width that rows would have to be folded to."""
STDOUT = Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED)
STDERR = Console(stderr=True, highlight=False)

WorkspaceOption = Annotated[
    str | None, typer.Option(metavar="URL", help=f"{described(WaveSettings, 'workspace')} (WAVE_WORKSPACE)")
]
FlowWeightsOption = Annotated[
    str | None, typer.Option(metavar="PATH", help=f"{described(WaveSettings, 'flow_weights')} (WAVE_FLOW_WEIGHTS)")
]
MemoryLimitOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help=f"{described(WaveSettings, 'memory_limit')} (WAVE_MEMORY_LIMIT)")
]
TracebacksOption = Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show Prefect's log, and tracebacks.")]


class NothingStarted(Exception):
    """An error before anything ran: what asked for the run is wrong, not a part of it."""

    exit_code = 2

    def __init__(self, reason: Exception) -> None:
        """Wrap the error that a person reads."""
        super().__init__(str(reason))
        self.reason = reason


def say(text: str) -> None:
    """Print a text to stdout as it is."""
    STDOUT.print(text, markup=False, soft_wrap=True)


def read_settings(**overrides: str | None) -> WaveSettings:
    """Read the settings; options that are given take precedence over the environment."""
    return load_settings(**{name: value for name, value in overrides.items() if value is not None})


def connect(*, verbose: bool) -> str:
    """Find Prefect's server and return its URL, empty for none; must run before anything else imports Prefect."""
    from flows.cli.server import connect_server

    with STDERR.status("Looking for a Prefect server"):
        server = connect_server(verbose=verbose)
    STDERR.print(f"Prefect: {server or 'a server of its own, which takes up to a minute to start'}")
    return server
