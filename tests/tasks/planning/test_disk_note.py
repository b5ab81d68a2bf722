from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.filesize import decimal

from tasks.planning.bulk import BulkPlan, plan_rows
from tasks.planning.dataset import dataset_request
from tasks.planning.disk_note import dataset_disk_note, edit_disk_note
from tasks.planning.plan import Execution
from tasks.planning.rows import read_rows
from tasks.planning.stages import STAGES
from tests._plans import planned


@pytest.fixture
def needed(tmp_path: Path) -> int:
    plan = planned(frame_count=40, workspace=str(tmp_path))
    return sum(spec.load(part).array_bytes for spec in STAGES for part in plan.parts(spec))


def set_free(patch: pytest.MonkeyPatch, free: int) -> None:
    patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


def test_an_edit_that_needs_more_than_is_free_says_so_before_it_starts(
    needed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(frame_count=40, workspace=str(tmp_path))
    set_free(monkeypatch, needed)
    assert edit_disk_note(plan) == ""
    set_free(monkeypatch, needed - 1)
    assert edit_disk_note(plan) == (
        f"{decimal(needed - 1)} are free in the workspace {tmp_path}, and what is to be computed needs up to "
        f"{decimal(needed)}: make room, or choose another WAVE_WORKSPACE."
    )


def test_of_an_object_store_it_is_not_known_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    set_free(monkeypatch, 0)
    assert edit_disk_note(planned(workspace="memory://nothing-of-disk")) == ""


def test_a_data_set_counts_results_that_rows_share_once(
    clip: Path, sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(variants: int) -> BulkPlan:
        request = dataset_request(
            source=str(clip.parent / clip.name.replace(".mp4", "*.mp4")),
            prompt="a star",
            variants=variants,
            defaults={"model": str(sd15), "steps": 2},
        )
        return plan_rows(read_rows(request), execution=Execution(workspace=str(tmp_path / "w")), remember=False)

    set_free(monkeypatch, 0)
    one, two = (dataset_disk_note(plan(count)) for count in (1, 2))
    assert one.startswith("0 bytes are free in the workspace")
    assert one != two
    set_free(monkeypatch, 10**12)
    assert dataset_disk_note(plan(2)) == ""
