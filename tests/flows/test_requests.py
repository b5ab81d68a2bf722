"""How often an edit reads, writes and lists its workspace: the counts are the specification."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli.tables import complete_stages, plan_table, stored_results
from flows.edit_video import edit_video
from flows.planning import plan_edit_request
from flows.settings import WaveSettings
from storage.workspace import Workspace
from tasks.planning.estimate import estimate_edit, read_costs
from tasks.planning.request import EditRequest, edit_request
from tests._clips import save_clip
from tests._counting import Counts, counted_workspaces
from tests._stages import make_plan, run_propagation, run_until_edited

DRY_RUN_OF_NOTHING = {"writes": 0, "reads": 14, "listings": 3}
FRESH = {"writes": 70, "reads": 166, "listings": 18}
RERUN = {"writes": 3, "reads": 6, "listings": 2}
"""Written are the probe, its removal, and the row of the table of runs."""
DRY_RUN = {"writes": 0, "reads": 10, "listings": 10}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    return counted_workspaces(monkeypatch)


@pytest.fixture
def request_(sd15: Path, tmp_path: Path) -> EditRequest:
    clip = save_clip(tmp_path / "clip.mp4", frames=9)
    return edit_request(video=str(clip), prompt="a blue star", model=str(sd15), steps=2, keyframe_interval=4)


def dry_run(request: EditRequest, settings: WaveSettings) -> None:
    plan = plan_edit_request(request, settings)
    stored = stored_results(plan)
    plan_table(plan, stored)
    costs = read_costs(Workspace.open(plan.execution.workspace))
    estimate_edit(plan, costs, complete=complete_stages(stored))


def test_a_dry_run_a_fresh_edit_and_a_complete_rerun_make_these_requests(
    server: str, counts: Counts, request_: EditRequest, tmp_path: Path
) -> None:
    settings = WaveSettings(workspace=str(tmp_path / "workspace"))
    dry_run(request_, settings)
    assert counts.take() == DRY_RUN_OF_NOTHING
    assert not (tmp_path / "workspace").exists()
    edit_video(request_, settings)
    assert counts.take() == FRESH
    edit_video(request_, settings)
    assert not counts.written & {"clips"}
    assert counts.take() == RERUN
    dry_run(request_, settings)
    assert counts.take() == DRY_RUN


def test_the_listings_of_a_propagation_do_not_grow_with_its_intervals(
    counts: Counts, request_: EditRequest, tmp_path: Path
) -> None:
    listings = []
    for interval in (4, 1):  # two intervals, then eight
        plan = make_plan(request_.model_copy(update={"keyframe_interval": interval}), tmp_path / str(interval))
        plan = run_until_edited(plan)
        counts.take()
        run_propagation(plan)
        listings.append(counts.take()["listings"])
    assert listings[0] == listings[1]
