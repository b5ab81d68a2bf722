"""Cost table: what each computed result took, from which the costs of the next ones are estimated.

One row for each result of a stage, appended when an edit is complete, in Parquet files under `tables/costs/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import pyarrow as pa

from storage._record_files import RecordFiles
from storage.workspace import Workspace

if TYPE_CHECKING:  # pandas takes a second to import, and only readers need it
    import pandas as pd

__all__ = ["CostRecord", "CostTable"]

_FOLDER = "tables/costs"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRecord:
    """The costs of one result, with what they grow with."""

    stage: str
    version: int
    """Version of the stage's algorithm."""
    path: str
    """Path of the artifact in the workspace."""
    digest: str
    device: str
    kind: str
    """What else decided its speed: see the table of stages."""
    pixels: int
    """Pixels that were computed."""
    at_once: int
    """Pixels in memory together."""
    array_bytes: int
    """Bytes before compression."""
    seconds: float
    peak_memory_mib: float
    """Of the process, from its start on."""
    stored_bytes: int
    """Bytes of the artifact."""


_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
_SCHEMA = pa.schema([(item.name, _TYPES[str(item.type)]) for item in fields(CostRecord)])


class CostTable:
    """The costs of all results of a workspace that were ever computed."""

    def __init__(self, workspace: Workspace, *, run: str = "local") -> None:
        """Open the table; write nothing and create nothing.

        Args:
            workspace: workspace of the table.
            run: name of the run that appends, one word.
        """
        self._records = RecordFiles(files=workspace.files, folder=_FOLDER, writer=run)

    def append(self, records: Iterable[CostRecord]) -> None:
        """Append records, all of them or none. Of a result that is recorded again, the last record counts."""
        rows = [asdict(record) for record in records]
        if rows:
            self._records.append(pa.Table.from_pylist(rows, schema=_SCHEMA))

    def read(self) -> pd.DataFrame:
        """Return one row for each result, the oldest first; its columns are the fields of a record.

        Raises:
            WorkspaceError: if a file is damaged.
        """
        found = self._records.read()
        table = found.select(_SCHEMA.names) if len(found) else _SCHEMA.empty_table()
        frame: pd.DataFrame = table.to_pandas()
        return frame.drop_duplicates(["stage", "digest"], keep="last", ignore_index=True)

    def compact(self) -> int:
        """Merge the files of many appends into one; return how many files were removed.

        Raises:
            WorkspaceError: if a file is damaged.
        """
        return self._records.compact()
