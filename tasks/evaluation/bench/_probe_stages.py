"""A program that runs the stages of a manifest's rows without Prefect: `python -m ... MANIFEST WORKSPACE`."""

from __future__ import annotations

import sys

from tasks.planning.dataset import dataset_request
from tasks.planning.plan import Execution
from tasks.planning.prepare import prepare_edit
from tasks.planning.rows import read_rows
from tasks.run_stages import run_stages

__all__ = ["main"]


def main(manifest: str, workspace: str) -> None:
    """Edit all rows, one after the other."""
    for row in read_rows(dataset_request(source=manifest)):
        run_stages(prepare_edit(row.request, execution=Execution(workspace=workspace)))


if __name__ == "__main__":
    main(*sys.argv[1:3])
