from __future__ import annotations

from storage.job_table import JobRecord, JobTable
from storage.workspace import Workspace


def record(job: str, attempt: int = 1) -> JobRecord:
    return JobRecord(job=job, stage="edit", attempt=attempt, worker="host:1", run="run")


def test_every_record_is_kept_in_order_also_of_a_job_that_was_computed_twice(workspace: Workspace) -> None:
    table = JobTable(workspace)
    assert list(table.read().columns) == [*JobRecord.__dataclass_fields__, "record"]
    assert len(table.read()) == 0
    appended = [record("clips/c/keyframes/b"), record("clips/c/keyframes/a"), record("clips/c/keyframes/b", attempt=2)]
    for each in appended:
        table.append([each])
    found = table.read()
    assert [JobRecord(**row) for row in found.drop(columns="record").to_dict("records")] == appended  # type: ignore[misc]
    assert table.compact() == 3
    assert JobTable(workspace).read().equals(found)
