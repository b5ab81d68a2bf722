"""Reading and writing the single rows of an array through whole stored objects: chunks, or shards of several rows."""

from __future__ import annotations

import math
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
            keep_bytes: memory for objects that were read and the one that is being read, which is kept in any case.

        Raises:
            WorkspaceError: if the array does not exist.
        """
        self._artifact, self._name, self._keep_bytes = artifact, name, keep_bytes
        array = artifact.array(name)
        self._rows, self._length = artifact.object_rows(name), array.shape[0]
        self._row_bytes = array.dtype.itemsize * math.prod(array.shape[1:])
        self._objects: OrderedDict[int, npt.NDArray[Any]] = OrderedDict()

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """Return a row. Raises WorkspaceError if it is outside the array or damaged."""
        if not 0 <= row < self._length:
            raise WorkspaceError(f"row {row} is outside {self._name}, which has {self._length}")
        number = row // self._rows
        if number not in self._objects:
            start = number * self._rows
            stop = min(start + self._rows, self._length)
            self._make_room((stop - start) * self._row_bytes)
            self._objects[number] = self._artifact.read_region(self._name, start, stop)
        self._objects.move_to_end(number)
        values: npt.NDArray[Any] = self._objects[number][row % self._rows]
        return values

    def _make_room(self, size: int) -> None:
        """Forget the objects that were read first, so that one of a size in bytes may be kept with the others."""
        while self._objects and sum(each.nbytes for each in self._objects.values()) + size > self._keep_bytes:
            self._objects.popitem(last=False)


class RowWriter:
    """Collects the rows of an array and writes whole objects, in their order.

    What is collected and not yet written is lost with the process, which then resumes at the last whole object.
    """

    def __init__(self, artifact: Artifact, name: str, start: int) -> None:
        """Begin at a row that is the first of an object. Raises WorkspaceError if it is not one."""
        self._artifact, self._name, self._start = artifact, name, start
        array = artifact.array(name)
        self._rows, self._length = artifact.object_rows(name), array.shape[0]
        self._shape, self._dtype = (self._rows, *array.shape[1:]), array.dtype
        self._pending: npt.NDArray[Any] | None = None
        self._count = 0
        if start % self._rows and start != self._length:
            raise WorkspaceError(f"row {start} of {name} is inside an object of {self._rows} rows")

    def append(self, row: npt.NDArray[Any]) -> None:
        """Add the next row. Raises WorkspaceError if it does not fit."""
        if row.shape != self._shape[1:] or not np.can_cast(row.dtype, self._dtype, "same_kind"):
            found, wanted = f"{row.dtype}{row.shape}", f"{self._dtype}{self._shape[1:]}"
            raise WorkspaceError(f"a row of {self._name} must be {wanted}, not {found}")
        if self._pending is None:
            self._pending = np.empty(self._shape, self._dtype)
        self._pending[self._count] = row
        self._count += 1
        if self._count == self._rows:
            self.flush()

    def flush(self) -> None:
        """Write what was collected: at the end of the array, where the last object may have fewer rows.

        Raises:
            WorkspaceError: if the array does not end here.
        """
        if self._pending is not None and self._count:
            self._artifact.write_region(self._name, self._start, self._pending[: self._count])
            self._start, self._count = self._start + self._count, 0
            self._pending = None
