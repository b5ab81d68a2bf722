"""Job table: every job that was computed, by whom and in which attempt.

One row for each time that a job was computed to its end, appended right after its result is complete, in Parquet files
under `tables/jobs/`. A job that was interrupted, and a result that was found complete, have no row: two rows of one job
say that it was computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage._record_table import RecordTable

__all__ = ["JobRecord", "JobTable"]


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


class JobTable(RecordTable[JobRecord]):
    """The jobs of a workspace that were ever computed."""

    folder = "tables/jobs"
    kind = JobRecord
