from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.back_pressure import DiskWindow, free_disk
from tasks.planning.bulk import PlannedRow

SIZES = {"decode-1": 50, "edit-1": 10, "edit-2": 10, "decode-2": 45, "edit-3": 10}


def item(*stages: str) -> PlannedRow:
    row: Any = None
    return PlannedRow(row=row, stages=(stages,))


ONE, TWO, OTHER = item("decode-1", "edit-1"), item("decode-1", "edit-2"), item("decode-2", "edit-3")


def test_rows_start_while_what_they_will_store_fits_and_what_they_share_counts_once() -> None:
    window = DiskWindow(sizes=SIZES, budget=70)
    window.start(ONE)
    assert window.admits(TWO)
    window.start(TWO)
    assert not window.admits(OTHER)
    window.end(ONE)
    assert not window.admits(OTHER)  # the other row still needs the decoded clip
    window.end(TWO)
    assert window.admits(OTHER)


def test_a_row_that_alone_is_over_the_budget_runs_alone() -> None:
    window = DiskWindow(sizes=SIZES, budget=1)
    assert window.admits(ONE)
    window.start(ONE)
    assert not window.admits(TWO)
    window.end(ONE)
    assert window.admits(TWO)


def test_what_is_stored_already_takes_no_disk() -> None:
    window = DiskWindow(sizes={"edit-1": 10, "edit-3": 10}, budget=20)
    window.start(ONE)
    assert window.admits(OTHER)


def test_without_a_budget_every_row_is_admitted() -> None:
    window = DiskWindow(sizes=SIZES)
    window.start(ONE)
    assert window.admits(OTHER)


def test_nothing_starts_with_less_free_disk_than_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> Any:
        asked.append(folder)
        return SimpleNamespace(free=5 * 10**9)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    absent = str(tmp_path / "not" / "yet")
    assert free_disk(absent, reserve=5 * 10**9) == ""
    assert asked == [tmp_path]
    assert free_disk(absent, reserve=6 * 10**9) == ("the disk is full: 5.0 GB are free, and 6.0 GB are kept in reserve")
    assert free_disk("s3://bucket/prefix", reserve=10**18) == ""
