"""Job table: every job that was computed, by whom and in which attempt.

One row for each time that a job was computed to its end, appended right after its result is complete, in Parquet files
under `tables/jobs/`. A job that was interrupted, and a result that was found complete, have no row: two rows of one job
say that it was computed twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import pyarrow as pa

from storage._record_files import KEY, RecordFiles
from storage.workspace import Workspace

if TYPE_CHECKING:  # pandas takes a second to import, and only readers need it
    import pandas as pd

__all__ = ["JobRecord", "JobTable"]

_FOLDER = "tables/jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job that was computed."""

    job: str
    """Path of what it wrote: an artifact in the workspace, or a part of one."""
    stage: str
    attempt: int
    """1, or more where the task run was tried again."""
    worker: str
    """Host and process, joined by a colon."""
    run: str
    """Flow run that it belonged to; empty without one."""


_TYPES = {"str": pa.string(), "int": pa.int64()}
_SCHEMA = pa.schema([(item.name, _TYPES[str(item.type)]) for item in fields(JobRecord)])


class JobTable:
    """The jobs of a workspace that were ever computed."""

    def __init__(self, workspace: Workspace) -> None:
        """Open the table; write nothing and create nothing."""
        self._records = RecordFiles(files=workspace.files, folder=_FOLDER, writer="job")

    def append(self, record: JobRecord) -> None:
        """Append a record; safe from several threads and processes."""
        self._records.append(pa.Table.from_pylist([asdict(record)], schema=_SCHEMA))

    def read(self) -> pd.DataFrame:
        """Return all records, the oldest first: the fields of a record, and `record`, the key, which sorts by time.

        Raises:
            WorkspaceError: if a file is damaged.
        """
        found = self._records.read()
        table = found.select([*_SCHEMA.names, KEY]) if len(found) else _SCHEMA.append(_KEY).empty_table()
        frame: pd.DataFrame = table.to_pandas()
        return frame

    def compact(self) -> int:
        """Merge the files of many appends into one; return how many files were removed.

        Raises:
            WorkspaceError: if a file is damaged.
        """
        return self._records.compact()


_KEY = pa.field(KEY, pa.string())
