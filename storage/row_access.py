"""Reading and writing the single rows of an array through whole stored objects: chunks, or shards of several rows."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.errors import WorkspaceError

if TYPE_CHECKING:
    from storage.artifact import Artifact

__all__ = ["RowReader", "RowWriter"]


class RowReader:
    """Reads rows along axis 0; an object is read as a whole, with one request, and the latest stay in memory."""

    def __init__(self, artifact: Artifact, name: str, *, keep_bytes: int = 0) -> None:
        """Read nothing yet.

        Args:
            artifact: the artifact.
            name: the array.
            keep_bytes: memory for objects that were read; the latest one is kept in any case.

        Raises:
            WorkspaceError: if the array does not exist.
        """
        self._artifact, self._name, self._keep_bytes = artifact, name, keep_bytes
        self._rows, self._length = artifact.object_rows(name), artifact.array(name).shape[0]
        self._objects: OrderedDict[int, npt.NDArray[Any]] = OrderedDict()

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """Return a row. Raises WorkspaceError if it is outside the array or damaged."""
        if not 0 <= row < self._length:
            raise WorkspaceError(f"row {row} is outside {self._name}, which has {self._length}")
        number = row // self._rows
        if number not in self._objects:
            start = number * self._rows
            stop = min(start + self._rows, self._length)
            self._objects[number] = self._artifact.read_region(self._name, start, stop)
        self._objects.move_to_end(number)
        while len(self._objects) > 1 and sum(each.nbytes for each in self._objects.values()) > self._keep_bytes:
            self._objects.popitem(last=False)
        values: npt.NDArray[Any] = self._objects[number][row % self._rows]
        return values


class RowWriter:
    """Collects the rows of an array and writes whole objects, in their order.

    What is collected and not yet written is lost with the process, which then resumes at the last whole object.
    """

    def __init__(self, artifact: Artifact, name: str, start: int) -> None:
        """Begin at a row that is the first of an object. Raises WorkspaceError if it is not one."""
        self._artifact, self._name, self._start = artifact, name, start
        self._rows, self._length = artifact.object_rows(name), artifact.array(name).shape[0]
        self._pending: list[npt.NDArray[Any]] = []
        if start % self._rows and start != self._length:
            raise WorkspaceError(f"row {start} of {name} is inside an object of {self._rows} rows")

    def append(self, row: npt.NDArray[Any]) -> None:
        """Add the next row. Raises WorkspaceError if an object is written with values that do not fit."""
        self._pending.append(np.array(row))
        if len(self._pending) == self._rows:
            self.flush()

    def flush(self) -> None:
        """Write what was collected: at the end of the array, where the last object may have fewer rows.

        Raises:
            WorkspaceError: if the array does not end here, or the values do not fit.
        """
        if self._pending:
            self._artifact.write_region(self._name, self._start, np.stack(self._pending))
            self._start += len(self._pending)
            self._pending.clear()
