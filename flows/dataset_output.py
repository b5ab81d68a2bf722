"""The output of a data set: where its videos are delivered, and what may be replaced there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.delivery import (
    Sample,
    check_replaceable,
    check_tar_files,
    deliver_video,
    is_delivered,
    output_location,
    write_metadata,
    write_webdataset,
)
from tasks.errors import TaskInputError
from tasks.planning.bulk import BulkPlan, PlannedRow, row_plan
from tasks.planning.dataset import DatasetRequest
from tasks.planning.row import Row, manifest_columns
from tasks.sidecar import sidecar_record

__all__ = ["DatasetOutput", "row_cells"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOutput:
    """The output folder, or none."""

    request: DatasetRequest
    dataset: str
    """Name of the data set."""
    bulk: BulkPlan

    def check(self) -> None:
        """Check, before anything is computed, that tar files may be replaced.

        Raises:
            TaskInputError: if not.
        """
        request = self.request
        if request.output is not None and request.layout == "webdataset":
            check_tar_files(request.output, shard=request.shard, overwrite=request.overwrite)

    def location(self, item: PlannedRow) -> str:
        """Return where the row's video is copied to; empty without an output folder, or in tar files."""
        if self.request.output is None or self.request.layout == "webdataset":
            return ""
        return output_location(self.request.output, item.row.output, suffix=item.row.suffix)

    def conflict(self, item: PlannedRow) -> str:
        """Return why what is at the row's place in the output may not be replaced; empty if it may."""
        if not (location := self.location(item)):
            return ""
        video = item.video if item.complete else None
        if video is not None and is_delivered(video, location):
            return ""
        try:
            check_replaceable(location, row=self._name(item), video=video, overwrite=self.request.overwrite)
        except TaskInputError as error:
            return str(error)
        return ""

    def deliver(self, item: PlannedRow) -> None:
        """Copy the edited clip to the output folder with its record, unless it is there."""
        location = self.location(item)
        if location and item.video is not None and not is_delivered(item.video, location):
            deliver_video(item.video, location, record=self._record(item))

    def write_tables(self, finished: Sequence[PlannedRow]) -> None:
        """Write the table that names the videos of the output folder, or its tar files."""
        output = self.request.output
        if output is None:
            return
        rows = [{"file_name": f"{item.row.output}{item.row.suffix}", **row_cells(item.row)} for item in finished]
        if self.request.layout == "webdataset":
            samples = [
                Sample(stem=item.row.output, video=item.video, values=row, record=self._record(item))
                for item, row in zip(finished, rows, strict=True)
                if item.video
            ]
            write_webdataset(output, samples, shard=self.request.shard)
        elif rows:
            write_metadata(output, rows)

    def _name(self, item: PlannedRow) -> dict[str, Any]:
        return {"dataset": self.dataset, "id": item.row.id, "variant": item.row.variant}

    def _record(self, item: PlannedRow) -> Callable[[Mapping[str, str]], bytes]:
        return lambda output: sidecar_record(row_plan(item, self.bulk), output=output, row=self._name(item))


def row_cells(row: Row) -> dict[str, Any]:
    """Return a row as it would be written to a manifest, by column."""
    return {name: values[0] for name, values in manifest_columns([row]).items()}
