"""Measurements in a process of their own: its peak memory is then that of the work alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tasks.errors import TaskInputError

__all__ = ["run_probe"]


def run_probe(module: str, *arguments: int | str | Path) -> dict[str, float]:
    """Run a program of this project, which prints one JSON object, in a new process that imports the same code.

    Raises:
        TaskInputError: if it fails.
    """
    root = str(Path(__file__).parents[3])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(  # noqa: S603  (this interpreter, our own module)
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if ended.returncode != 0:
        reason = (ended.stderr.strip().splitlines() or ["it wrote no message"])[-1]
        raise TaskInputError(f"The process that measures memory ended with code {ended.returncode}: {reason}.")
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found
