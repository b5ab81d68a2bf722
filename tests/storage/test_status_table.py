from __future__ import annotations

import itertools
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from storage.errors import WorkspaceError
from storage.status_table import (
    StatusRecord,
    StatusTable,
    counts_text,
    failed_manifest,
    state_counts,
    status_datasets,
)
from storage.workspace import Workspace
from tests._status import FOLDER, attempts, done, failed, names, started, table

# --- records ------------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_appended(workspace: Workspace) -> None:
    before = datetime.now(UTC)
    table(workspace, run="r7").append(
        StatusRecord(
            id="a",
            variant=3,
            state="failed",
            attempts=2,
            error_kind="bad input",
            message="a.mp4 is not a video",
            digest="d1",
            output="out/a.mp4",
            seconds={"decode": 1.5},
            metrics={"psnr": 30, "lpips": None},
            manifest={"prompt": "a star", "seed": 5},
        )
    )
    (row,) = table(workspace).history().to_dict("records")
    assert before - timedelta(milliseconds=1) <= row.pop("finished") <= datetime.now(UTC)
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{6}Z-r7-\w{12}-00000000", row.pop("record"))
    assert pd.isna(row.pop("metric_lpips"))
    assert row == {
        "id": "a",
        "variant": 3,
        "state": "failed",
        "attempts": 2,
        "error_kind": "bad input",
        "message": "a.mp4 is not a video",
        "digest": "d1",
        "output": "out/a.mp4",
        "run": "r7",
        "seconds_decode": 1.5,
        "metric_psnr": 30.0,
        "manifest_prompt": "a star",
        "manifest_seed": 5,
    }


def test_an_absent_table_has_the_fixed_columns_and_no_rows(workspace: Workspace) -> None:
    status = table(workspace)
    for frame in (status.history(), status.latest(), status.lost()):
        assert frame.empty
        assert {"id", "variant", "state", "error_kind", "finished"} <= set(frame)
    assert status.compact() == 0
    assert status_datasets(workspace) == []


def test_the_last_record_of_each_id_and_variant_is_the_latest(workspace: Workspace) -> None:
    status = table(workspace)
    status.append([started("a"), started("b")])
    status.append(failed("a"))
    status.append(StatusRecord(id="a", variant=1, state="skipped"))
    table(workspace, run="another").append([done("a", 1), done("a", 2)])
    found = {(row.id, row.variant): (row.state, row.attempts) for row in status.latest().itertuples()}
    assert found == {("a", 0): ("done", 2), ("a", 1): ("skipped", 0), ("b", 0): ("running", 1)}
    assert len(status.history()) == 6


def test_a_row_that_runs_has_no_end_and_one_that_ended_has_the_time_of_the_append(workspace: Workspace) -> None:
    then = datetime(2025, 1, 2, 3, tzinfo=UTC)
    table(workspace).append([started("a"), done("b"), done("c", finished=then)])
    finished = table(workspace).latest().set_index("id")["finished"]
    assert pd.isna(finished["a"])
    assert abs(finished["b"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert finished["c"] == then


def test_records_keep_their_order_when_the_clock_is_set_back(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        hours = itertools.count(10, -1)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2025, 1, 2, next(cls.hours), tzinfo=tz)

    monkeypatch.setattr("storage._record_files.datetime", Clock)
    status = table(workspace)
    for attempt in range(4):
        status.append(done("a", attempt))
    assert attempts(status.history()) == [("a", 0), ("a", 1), ("a", 2), ("a", 3)]


def test_columns_that_come_later_are_empty_in_earlier_records(workspace: Workspace) -> None:
    status = table(workspace)
    status.append(done("a", seconds={"decode": 1}, manifest={"prompt": "x"}))
    status.compact()
    status.append(done("b", seconds={"encode": 2}, manifest={"prompt": "y", "steps": 20, "draft": True}))
    for _ in range(2):
        rows = status.latest().set_index("id")
        assert rows.loc["b", ["seconds_encode", "manifest_steps", "manifest_draft"]].tolist() == [2, 20, True]
        assert rows.loc["a", ["seconds_encode", "manifest_steps", "manifest_draft"]].isna().all()
        assert rows.loc["a", "seconds_decode"] == 1
        assert str(rows.loc["b", "manifest_steps"]) == "20"  # not 20.0, which is not the manifest's value
        status.compact()


def test_manifest_values_of_mixed_types_become_text_also_across_files_and_compaction(workspace: Workspace) -> None:
    status = table(workspace)
    status.append([done("a", manifest={"note": 1, "seed": 1}), done("b", manifest={"note": "x", "seed": 2**80})])
    status.append(done("c", manifest={"note": 2, "seed": 3}))
    status.append(done("d", manifest={"note": None, "seed": None}))
    for _ in range(2):
        rows = status.latest().set_index("id")
        assert rows["manifest_note"].dropna().to_dict() == {"a": "1", "b": "x", "c": "2"}
        assert rows["manifest_seed"].dropna().to_dict() == {"a": "1", "b": str(2**80), "c": "3"}
        status.compact()


def test_nested_values_are_json_and_names_that_are_not_unicode_do_not_stop_a_record(workspace: Workspace) -> None:
    odd = os.fsdecode(b"in/\xff.mp4")
    table(workspace).append(
        failed(odd, message=f"no {odd}", manifest={"tags": ["x", {"y": 1}], "source": odd, odd: Path("p")})
    )
    (row,) = table(workspace).history().to_dict("records")
    assert row["id"] == row["manifest_source"] == r"in/\udcff.mp4"
    assert row["message"] == r"no in/\udcff.mp4"
    assert row["manifest_tags"] == '["x", {"y": 1}]'
    assert row[r"manifest_in/\udcff.mp4"] == "p"


def test_tables_of_data_sets_are_separate_and_listed(workspace: Workspace) -> None:
    table(workspace).append(done("a"))
    StatusTable(workspace, "weekly").append(done("b"))
    assert status_datasets(workspace) == ["nightly", "weekly"]
    assert list(table(workspace).latest()["id"]) == ["a"]


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b", ".hidden"])
def test_names_that_are_not_one_word_are_refused(name: str, workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError):
        StatusTable(workspace, name)
    with pytest.raises(WorkspaceError):
        StatusTable(workspace, "a", run=name)


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(WorkspaceError, match=r"one of done, skipped, .* running, got 'lost'"):
        StatusRecord(id="a", state="lost")  # type: ignore[arg-type]


@pytest.mark.parametrize(("data", "words"), [(b"no parquet", "x.parquet is damaged"), (None, "no column record")])
def test_a_file_that_is_not_of_the_table_is_refused_by_name(
    data: bytes | None, words: str, workspace: Workspace, tmp_path: Path
) -> None:
    table(workspace).append(done("a"))
    if data is None:
        pd.DataFrame({"id": ["a"]}).to_parquet(tmp_path / "foreign")
        data = (tmp_path / "foreign").read_bytes()
    workspace.files.write(f"{FOLDER}/x.parquet", data)
    with pytest.raises(WorkspaceError, match=words):
        table(workspace).latest()
    with pytest.raises(WorkspaceError, match=words):
        table(workspace).compact()
    assert len(names(workspace)) == 2


# --- rows that killed their workers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "unended"),
    [
        ([], None),
        ([started("a", 1)], None),
        ([started("a", 1), started("a", 2)], 2),
        ([started("a", 1), started("a", 2), started("a", 3)], 3),
        ([started("a", 1), failed("a"), started("a", 2)], None),
        ([started("a", 1), failed("a"), started("a", 2), started("a", 3)], 2),
        ([started("a", 1), started("a", 2), done("a")], None),
        ([started("a", 1), started("a", 2), StatusRecord(id="a", state="quarantined")], None),
    ],
)
def test_a_row_is_lost_if_it_started_twice_and_never_ended(
    records: list[StatusRecord], unended: int | None, workspace: Workspace
) -> None:
    status = table(workspace)
    for record in records:
        status.append([started("b"), record, StatusRecord(id="a", variant=1, state="running"), done("b")])
        status.append(StatusRecord(id="a", variant=1, state="failed"))
    found = status.lost()
    expected = [] if unended is None else [("a", 0, unended)]
    assert [(row.id, row.variant, row.unended) for row in found.itertuples()] == expected
    assert len(status.lost(limit=4)) == 0


# --- manifests of what failed -------------------------------------------------------------------------------------


def test_the_failed_rows_are_a_manifest_with_the_reasons(workspace: Workspace, tmp_path: Path) -> None:
    status = table(workspace)
    rows = {
        name: {"id": name, "source": f"{name}.mp4", "seed": seed} for name, seed in zip("abcd", range(4), strict=True)
    }
    rows["d"] |= {"seed": None}
    status.append(failed("d", error_kind="out of memory", message="no memory", manifest=rows["d"]))
    status.append([failed("a", manifest=rows["a"]), done("b", manifest=rows["b"])])
    status.append(failed("c", error_kind="bad input", message="is not a video", manifest=rows["c"]))
    status.append([done("a", manifest=rows["a"]), StatusRecord(id="e", state="quarantined", error_kind="lost")])
    made = failed_manifest(status.latest(), ["source", "id", "seed", "note"])
    made.to_csv(tmp_path / "failed.csv", index=False)
    assert (tmp_path / "failed.csv").read_text().splitlines() == [
        "source,id,seed,note,error_kind,error",
        "c.mp4,c,2,,bad input,is not a video",
        "d.mp4,d,,,out of memory,no memory",
    ]
    everything = failed_manifest(status.latest(), ["source"], states=("failed", "quarantined"))
    assert everything["id"].tolist() == ["c", "d", "e"]
    assert list(everything) == ["id", "source", "error_kind", "error"]


def test_a_row_is_once_in_the_manifest_however_many_variants_failed(workspace: Workspace) -> None:
    table(workspace).append(
        [StatusRecord(id="a", variant=n, state="failed", message=f"m{n}", manifest={"id": "a"}) for n in (2, 0, 1)]
    )
    made = failed_manifest(table(workspace).latest(), ["id"])
    assert made.to_dict("records") == [{"id": "a", "error_kind": "", "error": "m0"}]


def test_reasons_of_an_earlier_run_are_replaced(workspace: Workspace) -> None:
    old = {"id": "a", "error_kind": "lost", "error": "of yesterday"}
    table(workspace).append(failed("a", error_kind="bad input", message="of today", manifest=old))
    made = failed_manifest(table(workspace).latest(), list(old))
    assert made.to_dict("records") == [{"id": "a", "error_kind": "bad input", "error": "of today"}]


def test_without_a_failure_the_manifest_has_its_columns_and_no_rows(workspace: Workspace) -> None:
    table(workspace).append(done("a", manifest={"id": "a"}))
    made = failed_manifest(table(workspace).latest(), ["id", "source"])
    assert (list(made), len(made)) == (["id", "source", "error_kind", "error"], 0)


def test_the_counts_read_as_a_sentence(workspace: Workspace) -> None:
    status = table(workspace)
    status.append([*(done(f"d{n}") for n in range(148)), *(failed(f"f{n}") for n in range(2))])
    status.append([StatusRecord(id=f"s{n}", state="skipped") for n in range(4)])
    assert counts_text(state_counts(status.latest())) == "148 done, 4 skipped, 2 failed"
    status.append([StatusRecord(id="f0", state="quarantined"), started("f1")])
    assert counts_text(state_counts(status.latest())) == "148 done, 4 skipped, 0 failed, 1 quarantined, 1 running"
