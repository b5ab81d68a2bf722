"""Tables: rows in Parquet under `tables/`, one file per run, so that no two runs write the same file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from storage._layout import checked_path
from storage.errors import WorkspaceError
from storage.files import is_partial
from storage.workspace import Workspace

if TYPE_CHECKING:  # pandas takes a second to import, and few importers of this module read tables
    import pandas as pd

__all__ = ["append_run", "read_runs"]

_FOLDER = "tables"


def append_run(
    workspace: Workspace,
    rows: Mapping[str, object] | Sequence[Mapping[str, object]],
    *,
    run: str,
    table: str = "runs",
) -> None:
    """Write the rows of one run, replacing those of a run of the same name.

    Args:
        workspace: workspace of the table.
        rows: one row or several, by column; values are numbers, strings, booleans, dates or None.
        run: the run's name, one word; it becomes the column `run`.
        table: the table's name, one word.

    Raises:
        WorkspaceError: if a name is not one word, or a column mixes types that have no common one.
    """
    several = [rows] if isinstance(rows, Mapping) else list(rows)
    columns = dict.fromkeys(
        ["run", *(column for row in several for column in row)]
    )  # pyarrow alone takes those of the first row
    try:
        content = pa.Table.from_pylist([{**columns, "run": run, **row} for row in several])
    except pa.ArrowException as error:
        raise WorkspaceError(f"the rows of run {run} do not form a table: {error}") from error
    buffer = io.BytesIO()
    pq.write_table(content, buffer)
    workspace.files.write(f"{_FOLDER}/{_word(table)}/{_word(run)}.parquet", buffer.getvalue())


def read_runs(workspace: Workspace, *, table: str = "runs") -> pd.DataFrame:
    """Return all rows of a table, run after run in the order of their names; an empty frame for an absent table.

    Raises:
        WorkspaceError: if a file is damaged, or the types of a column differ too much between runs.
    """
    folder = f"{_FOLDER}/{_word(table)}"
    listed = workspace.files.sizes(folder)
    keys = sorted(key for key in listed if key.endswith(".parquet") and not is_partial(key))
    found = workspace.files.read_many([f"{folder}/{key}" for key in keys])
    try:
        tables = [pq.read_table(io.BytesIO(found[key])) for key in sorted(found)] or [pa.table({})]
        frame: pd.DataFrame = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    except pa.ArrowException as error:
        raise WorkspaceError(f"the table {table} in {workspace.url} cannot be read: {error}") from error
    return frame


def _word(name: str) -> str:
    if "/" in checked_path(name):
        raise WorkspaceError(f"the name of a table or a run must be one word, got {name!r}")
    return name
