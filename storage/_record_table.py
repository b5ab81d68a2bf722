"""Tables of records of one kind: a dataclass of texts and numbers is a row, and its fields are the columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import pyarrow as pa

from storage._record_files import KEY, RecordFiles
from storage.workspace import Workspace

if TYPE_CHECKING:  # pandas takes a second to import, and only readers need it
    import pandas as pd

__all__ = ["RecordTable"]

_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
R = TypeVar("R")


class RecordTable(Generic[R]):
    """Records that processes and machines append at any time, in the Parquet files of one folder of a workspace."""

    folder: ClassVar[str]
    kind: ClassVar[type[Any]]
    """The dataclass of a record."""
    lenient: ClassVar[bool] = False
    """Whether a damaged file is left out with a warning: where the records only serve for estimates."""

    def __init__(self, workspace: Workspace, *, run: str = "local") -> None:
        """Open the table; write nothing and create nothing.

        Args:
            workspace: workspace of the table.
            run: name of the run that appends, one word.
        """
        self._records = RecordFiles(files=workspace.files, folder=self.folder, writer=run, lenient=self.lenient)

    def append(self, records: Iterable[R]) -> None:
        """Append records, all of them or none; safe from several threads and processes."""
        rows = [asdict(record) for record in records]  # type: ignore[call-overload]
        if rows:
            self._records.append(pa.Table.from_pylist(rows, schema=self._schema()))

    def read(self) -> pd.DataFrame:
        """Return all records, the oldest first: the fields of a record, and `record`, the key, which sorts by time.

        Raises:
            WorkspaceError: if a file is damaged, unless the table is lenient.
        """
        schema = self._schema().append(pa.field(KEY, pa.string()))
        found = self._records.read()
        table = found.select(schema.names) if len(found) else schema.empty_table()
        frame: pd.DataFrame = table.to_pandas()
        return frame

    def compact(self) -> int:
        """Merge the files of many appends into one; return how many files were removed.

        Raises:
            WorkspaceError: if a file is damaged, unless the table is lenient: such a file stays as it is.
        """
        return self._records.compact()

    def _schema(self) -> pa.Schema:
        return pa.schema([(item.name, _TYPES[str(item.type)]) for item in fields(self.kind)])
