"""What a rehearsal must show: each target is missed where it should be."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from flows.rehearsal.dataset import BAD_ROWS, KILLER, RehearsalSet, draw_dataset
from flows.rehearsal.drill import Story
from flows.rehearsal.results import measure_story
from storage.job_table import JobRecord, JobTable
from storage.status_table import StatusRecord, StatusTable
from storage.workspace import Workspace
from tasks.evaluation.bench.measurements import measurement_record
from tasks.planning.bulk import plan_rows
from tasks.planning.dataset import dataset_request
from tasks.planning.plan import Execution
from tasks.planning.rows import order_by_source, read_rows

GOOD = ("one", "two")


@pytest.fixture
def data(tmp_path: Path) -> RehearsalSet:
    return RehearsalSet(manifest=tmp_path / "clips.csv", good=GOOD, killer_clip=tmp_path / "killer.mp4")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Return what a rehearsal leaves if all went well."""
    workspace = Workspace.open(tmp_path / "workspace")
    table = StatusTable(workspace, "clips")
    table.append([StatusRecord(id=name, state="done") for name in GOOD])
    table.append([StatusRecord(id=name, state="failed", message=reason) for name, reason in BAD_ROWS.items()])
    table.append(StatusRecord(id=KILLER, state="quarantined"))
    for name in GOOD:
        workspace.artifact(workspace.ref(f"clips/c/keyframes/{name}", name)).complete()
        JobTable(workspace).append([record(name)])
        for folder in ("edited", "quiet"):
            Workspace.open(tmp_path / folder).files.write(f"{name}.mp4", name.encode())
    return workspace


def record(name: str) -> JobRecord:
    return JobRecord(job=f"clips/c/keyframes/{name}", stage="edit", attempt=1, worker="host:1", run="")


def missed(workspace: Workspace, data: RehearsalSet, **changes: object) -> set[str]:
    """Return the names of the metrics that miss their targets."""
    place = Path(workspace.url).parent
    story = Story(
        workspace=workspace.url,
        output=str(place / "edited"),
        quiet_output=str(place / "quiet"),
        pending=True,
        stage="clips/c/inversion/d",
        server=True,
        deaths=2,
        scheduled=uuid4(),
        scheduled_state="COMPLETED",
        jobs_before=len(GOOD),
    )
    for name, value in changes.items():
        setattr(story, name, value)
    records = [measurement_record("rehearse", each) for each in measure_story("here", story, data)]
    return {each["metric"].partition("/")[0] for each in records if each["holds"] is False}


def test_nothing_is_missed_if_all_went_well(workspace: Workspace, data: RehearsalSet) -> None:
    assert missed(workspace, data) == set()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"pending": False}, "workers killed between PENDING and RUNNING"),
        ({"stage": ""}, "workers killed in a GPU stage"),
        ({"server": False}, "servers killed"),
        ({"deaths": 1}, "deaths by one row"),
        ({"scheduled_state": "FAILED"}, "scheduled run completed"),
        ({"scheduled_children": 1}, "flow runs below the scheduled run"),
        ({"jobs_before": 1}, "computed by the scheduled run"),
    ],
)
def test_a_part_that_was_left_out_is_noticed(
    changes: dict[str, object], name: str, workspace: Workspace, data: RehearsalSet
) -> None:
    assert missed(workspace, data, **changes) == {name}


def test_rows_in_a_wrong_state_are_noticed(workspace: Workspace, data: RehearsalSet) -> None:
    table = StatusTable(workspace, "clips")
    table.append([StatusRecord(id="one", state="quarantined"), StatusRecord(id=KILLER, state="done")])
    table.append(StatusRecord(id="cut-off", state="failed", message="the server is away"))
    rows = {"complete", "bad rows failed with their reason", "set aside: the row that kills", "set aside: others"}
    assert missed(workspace, data) == rows


def test_what_was_computed_twice_or_by_nobody_known_is_noticed(workspace: Workspace, data: RehearsalSet) -> None:
    JobTable(workspace).append([record("one")])
    workspace.artifact(workspace.ref("clips/c/keyframes/three", "three")).complete()
    names = {"computed twice", "complete results without a record"}
    assert missed(workspace, data, jobs_before=3) == names


def test_other_bytes_and_videos_too_many_are_noticed(workspace: Workspace, data: RehearsalSet) -> None:
    edited = Workspace.open(Path(workspace.url).parent / "edited").files
    edited.write("one.mp4", b"other")
    edited.write(f"{KILLER}.mp4", b"")
    assert missed(workspace, data) == {"as in a quiet run", "of rows that are not complete"}


def test_only_the_bad_rows_of_the_data_set_cannot_be_edited_each_for_its_reason(tmp_path: Path) -> None:
    data = draw_dataset(tmp_path / "clips", 60)
    rows = order_by_source(read_rows(dataset_request(source=str(data.manifest))))
    bulk = plan_rows(rows, execution=Execution(workspace=str(tmp_path / "workspace")), remember=False)
    errors = {item.row.id: item.error for item in bulk.rows if item.error}
    assert errors.keys() == BAD_ROWS.keys()
    assert all(BAD_ROWS[name] in error for name, error in errors.items())
    assert {item.row.id for item in bulk.rows} == {*data.good, *BAD_ROWS, KILLER}
    assert len(bulk.rows) == 60
    assert len({item.identity["source"] for item in bulk.to_run}) == 10
