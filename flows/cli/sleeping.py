"""The `wave` command with stages that sleep: `python -m flows.cli.sleeping NAPS COMMAND ...`.

For measurements of everything around the stages, with many more clips and GPUs than this machine could compute.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from flows.cli import main as wave
from flows.cli.server import connect_server

__all__ = ["main"]


def main() -> None:
    """Replace the functions of the stages, and run the command of the other arguments."""
    connect_server()  # before the stages, which import Prefect
    from tasks.evaluation.bench.sleeping_stages import Naps, sleeping
    from tasks.stage import StageTask

    naps = Naps(**json.loads(sys.argv.pop(1)))
    flow = import_module("flows.edit_video")
    for name, stage in vars(flow).items():
        if isinstance(stage, StageTask):
            setattr(flow, name, sleeping(stage, naps))
    wave()


if __name__ == "__main__":
    main()
