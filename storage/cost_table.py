"""Cost table: what each computed result took, from which the costs of the next ones are estimated.

One row for each result of a stage, appended when an edit is complete, in Parquet files under `tables/costs/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage._record_files import KEY
from storage._record_table import RecordTable

if TYPE_CHECKING:  # pandas takes a second to import, and only readers need it
    import pandas as pd

__all__ = ["CostRecord", "CostTable"]


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


class CostTable(RecordTable[CostRecord]):
    """The costs of all results of a workspace that were ever computed."""

    folder = "tables/costs"
    kind = CostRecord
    lenient = True

    def read(self) -> pd.DataFrame:
        """Return one row for each result, the oldest first: of one that was recorded again, the last record.

        Damaged files are left out, with a warning: nothing but estimates is made from these records.
        """
        return super().read().drop(columns=KEY).drop_duplicates(["stage", "digest"], keep="last", ignore_index=True)
