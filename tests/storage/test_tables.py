from __future__ import annotations

import pandas as pd
import pytest

from storage.errors import WorkspaceError
from storage.tables import append_run, read_runs
from storage.workspace import Workspace


def test_runs_with_different_columns_are_read_as_one_table(workspace: Workspace) -> None:
    append_run(workspace, {"clip": "a", "seconds": 1.5}, run="r1")
    append_run(workspace, [{"clip": "b", "seconds": 2, "note": None}, {"clip": "c", "frames": 3}], run="r2")
    table = read_runs(workspace)
    assert list(table["run"]) == ["r1", "r2", "r2"]
    assert list(table["clip"]) == ["a", "b", "c"]
    assert table["seconds"].tolist()[:2] == [1.5, 2.0]
    assert pd.isna(table["frames"][0])


def test_writing_a_run_again_replaces_it(workspace: Workspace) -> None:
    append_run(workspace, {"value": 1}, run="r")
    append_run(workspace, {"value": 2}, run="r")
    assert read_runs(workspace)["value"].tolist() == [2]


def test_tables_are_separate_and_an_absent_one_is_empty(workspace: Workspace) -> None:
    append_run(workspace, {"value": 1}, run="r", table="metrics")
    assert read_runs(workspace).empty
    assert len(read_runs(workspace, table="metrics")) == 1


def test_a_half_file_of_a_writer_that_was_killed_is_not_read(workspace: Workspace) -> None:
    append_run(workspace, {"value": 1}, run="r")
    workspace.files.write("tables/runs/.partial-0123456789ab-r2.parquet", b"PAR1")
    assert read_runs(workspace)["value"].tolist() == [1]


def test_a_damaged_file_is_refused(workspace: Workspace) -> None:
    workspace.files.write("tables/runs/bad.parquet", b"no parquet")
    with pytest.raises(WorkspaceError, match="cannot be read"):
        read_runs(workspace)


@pytest.mark.parametrize("rows", [[{"a": 1}, {"a": "x"}], {"a": object()}])
def test_rows_that_do_not_form_a_table_are_refused(rows: object, workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="do not form a table"):
        append_run(workspace, rows, run="r")  # type: ignore[arg-type]


@pytest.mark.parametrize("run", ["../r", "a/b", ""])
def test_a_run_name_that_is_not_one_word_is_refused(run: str, workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError):
        append_run(workspace, {"a": 1}, run=run)
