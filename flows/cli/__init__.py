"""The `wave` command: one module for each subcommand, with what it draws."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from flows.cli import (  # noqa: F401  (each registers its command)
    bench,
    check,
    dataset,
    demo,
    doctor,
    drill,
    edit,
    evaluate,
    manifest,
    rehearse,
    resume,
    serve,
    train,
    workspace,
)
from flows.cli.console import STDERR, NothingStarted, app, say
from tasks.version import wave_version

__all__ = ["app", "main"]

_INTERRUPTED = 130
_RESUMABLE = {"dataset", "demo", "edit", "evaluate", "resume", "train-embedded"}
_PACKAGES = ("storage", "tasks", "wave_ops")
_MISUSE: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def main() -> None:
    """Run the command; an error is one sentence on stderr."""
    try:
        code = app(standalone_mode=False) or 0
        if code == _INTERRUPTED:  # as newer versions of typer report it
            raise KeyboardInterrupt
    except _MISUSE as error:
        code = _complain(error.format_message(), code=error.exit_code)
    except NothingStarted as error:
        code = _complain(error.reason, code=error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _complain(_interrupted(), code=_INTERRUPTED)
    except Exception as error:  # noqa: BLE001  (the outermost boundary: a person wants a sentence)
        code = _complain(_interrupted(), code=_INTERRUPTED) if _is_cancelled(error) else _complain(error)
    sys.exit(code)


def _interrupted() -> str:
    return "Interrupted. The same command resumes from here." if {*sys.argv[1:2]} & _RESUMABLE else "Interrupted."


@app.callback(invoke_without_command=True)
def wave(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Edit videos by text."""
    if version:
        say(f"wave {wave_version()}")
        raise typer.Exit


def _is_ours(error: Exception) -> bool:
    """Recognise errors raised on purpose by their base's module: importing it would cost every command seconds."""
    return any(base.__module__ in {f"{name}.errors" for name in _PACKAGES} for base in type(error).__mro__)


def _is_cancelled(error: Exception) -> bool:
    """Recognise what a flow that was cancelled raises, by name: importing it would cost every command seconds."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}" == "prefect.exceptions.CancelledRun"


def _complain(error: Exception | str, *, code: int = 1) -> int:
    """Print one sentence; a traceback only with --verbose."""
    if isinstance(error, Exception) and "--verbose" in sys.argv:
        STDERR.print_exception()
    lines = str(error).strip().splitlines() or [""]
    text = lines[0]  # as it is: it may begin with the name of a file
    if isinstance(error, Exception) and not _is_ours(error):
        text = f"Unexpected {type(error).__name__}: {lines[0]} (--verbose shows where)"
    STDERR.print(f"wave: {text}", style="red", markup=False, soft_wrap=True)
    return code
