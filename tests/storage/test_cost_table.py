from __future__ import annotations

from typing import Any

import pytest

from storage.cost_table import CostRecord, CostTable
from storage.workspace import Workspace


def record(digest: str, **others: Any) -> CostRecord:
    fields: dict[str, Any] = {
        "stage": "decode",
        "version": 1,
        "path": f"clips/c/{digest}",
        "digest": digest,
        "device": "cpu",
        "kind": "",
        "pixels": 100,
        "at_once": 10,
        "array_bytes": 300,
        "seconds": 1.5,
        "peak_memory_mib": 900.0,
        "stored_bytes": 200,
    }
    return CostRecord(**fields | others)


def test_costs_are_read_as_they_were_appended_and_an_absent_table_is_empty(workspace: Workspace) -> None:
    table = CostTable(workspace)
    assert list(table.read().columns) == list(CostRecord.__dataclass_fields__)
    assert len(table.read()) == 0
    table.append([record("a"), record("b", stage="edit", device="cuda", kind="model x")])
    table.append([])
    found = table.read().to_dict("records")
    assert [CostRecord(**row) for row in found] == [  # type: ignore[misc]
        record("a"),
        record("b", stage="edit", device="cuda", kind="model x"),
    ]


def test_a_result_that_is_recorded_again_counts_once_with_its_last_costs(workspace: Workspace) -> None:
    CostTable(workspace, run="one").append([record("a"), record("b")])
    CostTable(workspace, run="two").append([record("a", seconds=2.5)])
    found = CostTable(workspace).read()
    assert dict(zip(found["digest"], found["seconds"], strict=True)) == {"a": 2.5, "b": 1.5}
    assert CostTable(workspace).compact() == 2
    assert CostTable(workspace).read().equals(found)
    assert len(workspace.files.sizes("tables/costs")) == 1


def test_a_damaged_file_of_costs_is_left_out_with_a_warning_and_never_removed(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    table = CostTable(workspace)
    for digest in "ab":
        table.append([record(digest)])
    workspace.files.write("tables/costs/0.parquet", b"PAR1 and then something else")
    workspace.files.write("tables/costs/1.merged.parquet", b"")
    assert set(table.read()["digest"]) == {"a", "b"}
    assert table.compact() == 2
    assert set(table.read()["digest"]) == {"a", "b"}
    assert {"0.parquet", "1.merged.parquet"} < workspace.files.sizes("tables/costs").keys()
    assert "tables/costs/0.parquet is damaged" in caplog.text
    assert len(caplog.messages[0].splitlines()) == 1
