"""A data set through the flow: the promises of bulk edits, each by name."""

from __future__ import annotations

import errno
import json
import os
import sys
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
import pandas as pd
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.context import serialize_context
from prefect.exceptions import CancelledRun

from flows import edit_dataset as module
from flows.cli import main
from flows.edit_dataset import DatasetResult, edit_dataset
from flows.settings import WaveSettings, using_settings
from storage.inventory import take_inventory
from storage.status_table import StatusRecord, StatusTable
from storage.video import write_video
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.failures import FailureBudget, error_kind
from tasks.planning.dataset import DatasetRequest, dataset_request
from tests._clips import save_clip
from wave_ops.scenes.rendering import cut
from wave_ops.scenes.specs import random_scene


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    for seed in (1, 2):
        save_clip(tmp_path / "clips" / f"{seed}.mp4", seed=seed, frames=3)
    (tmp_path / "clips" / "bad.mp4").write_text("not a video")
    return tmp_path


@pytest.fixture
def manifest(folder: Path) -> Path:
    rows = [
        {"id": "one-blue", "source": "1.mp4", "prompt": "a blue star", "tag": "x"},
        {"id": "one-green", "source": "1.mp4", "prompt": "a green star", "tag": "y"},
        {"id": "two-blue", "source": "2.mp4", "prompt": "a blue star", "tag": "z"},
        {"id": "bad", "source": "bad.mp4", "prompt": "a star", "tag": "w"},
    ]
    path = folder / "clips" / "set.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture
def request_(manifest: Path, folder: Path, sd15: Path) -> DatasetRequest:
    return dataset_request(
        source=str(manifest),
        output=str(folder / "out"),
        defaults={"model": str(sd15), "steps": 1, "keyframe_interval": 2},
    )


@pytest.fixture
def settings(folder: Path) -> WaveSettings:
    return WaveSettings(workspace=str(folder / "workspace"), max_tasks=2)


def run(request: DatasetRequest, settings: WaveSettings) -> DatasetResult:
    with using_settings(settings):
        return edit_dataset(request)


def latest(settings: WaveSettings) -> pd.DataFrame:
    return StatusTable(Workspace.open(settings.workspace), "set").latest().set_index("id")


def test_everything_that_can_be_done_is_done_and_only_what_failed_is_left(
    server: str, request_: DatasetRequest, settings: WaveSettings, folder: Path, manifest: Path
) -> None:
    result = run(request_, settings)
    assert str(result) == "3 done, 0 skipped, 1 failed"
    assert result.exit_code == 1
    videos = {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.mp4")}
    assert set(videos) == {"one-blue.mp4", "one-green.mp4", "two-blue.mp4"}
    table = latest(settings)
    assert table.loc["bad", "state"] == "failed"
    assert table.loc["bad", "error_kind"] == "input"
    assert table.loc["one-blue", "manifest_tag"] == "x"
    assert table.loc["one-blue", "seconds_invert"] > 0
    failed = pd.read_csv(result.failed)
    assert list(failed["id"]) == ["bad"]
    assert "not a video" in failed["error"][0]
    metadata = pd.read_csv(folder / "out" / "metadata.csv")
    assert set(metadata["file_name"]) == set(videos)
    record = json.loads((folder / "out" / "one-blue.mp4.provenance.json").read_text())
    assert (record["prompt"], record["row"]) == ("a blue star", {"dataset": "set", "id": "one-blue", "variant": 0})
    # The same command again: nothing is touched, and no flow run starts for a complete row
    again = run(request_, settings)
    assert str(again) == "0 done, 3 skipped, 1 failed"
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.mp4")} == videos


def test_a_clip_with_cuts_is_delivered_and_complete_the_next_time_whatever_is_kept(
    server: str, sd15: Path, settings: WaveSettings, folder: Path
) -> None:
    scene = cut(*(random_scene(seed, size=(48, 64), frame_count=3) for seed in (3, 8)))
    path = folder / "cut" / "cut.mp4"
    path.parent.mkdir()
    write_video(path, scene.frames, timestamps=range(6), time_base=Fraction(1, 12))
    request = dataset_request(
        source=str(path.parent),
        prompt="a blue star",
        output=str(folder / "out"),
        keep="results",
        defaults={"model": str(sd15), "steps": 1, "keyframe_interval": 2},
    )
    assert str(run(request, settings)) == "1 done, 0 skipped, 0 failed"
    assert (folder / "out" / "cut.mp4").exists()
    assert "source" not in {artifact.kind for artifact in take_inventory(Workspace.open(settings.workspace)).artifacts}
    assert str(run(request, settings)) == "0 done, 1 skipped, 0 failed"


def test_a_changed_source_is_found_and_a_deleted_output_is_made_again(
    server: str, request_: DatasetRequest, settings: WaveSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(request_, settings)
    save_clip(folder / "clips" / "2.mp4", seed=9, frames=3)
    (folder / "out" / "one-green.mp4").unlink()
    edited: list[str] = []
    original = module.edit_row.submit
    monkeypatch.setattr(module.edit_row, "submit", lambda label, *rest: edited.append(label) or original(label, *rest))
    result = run(request_, settings)
    assert edited == ["two-blue"]
    assert str(result) == "1 done, 2 skipped, 1 failed"
    assert (folder / "out" / "one-green.mp4").exists()


def test_only_what_failed_is_retried(
    server: str, request_: DatasetRequest, settings: WaveSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(request_, settings)
    save_clip(folder / "clips" / "bad.mp4", seed=5, frames=3)
    (folder / "out" / "bad.mp4").write_bytes(b"a video of mine")
    result = run(request_.model_copy(update={"only": "failed"}), settings)
    assert str(result) == "0 done, 0 skipped, 1 failed"
    assert "bad.mp4 exists, and this row is not known" in latest(settings).loc["bad", "message"]
    assert (folder / "out" / "bad.mp4").read_bytes() == b"a video of mine"
    result = run(request_.model_copy(update={"only": "failed", "overwrite": True}), settings)
    assert str(result) == "1 done, 0 skipped, 0 failed"
    assert result.failed == ""
    assert set(latest(settings)["state"]) == {"done"}


def test_a_row_is_tried_again_where_that_may_help_and_the_run_stops_when_all_fail_alike(
    server: str, request_: DatasetRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("gone")

    monkeypatch.setattr("flows.edit_video.edit_video", fail)
    result = run(request_.model_copy(update={"attempts": 2, "max_failures": "1"}), settings)
    assert result.stopped.startswith("failed rows: 2")
    assert result.exit_code == 1
    table = latest(settings)
    assert table.loc["one-blue", "attempts"] == 2
    assert table.loc["one-blue", "error_kind"] == "transient"


def test_a_row_begins_only_once_the_server_answers(
    server: str, request_: DatasetRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    away: list[Exception | None] = [httpx.ConnectError("gone"), httpx.ConnectError("gone"), None]
    began: list[int] = []
    monkeypatch.setattr(
        SyncPrefectClient, "api_healthcheck", lambda _: away.pop(0) if len(away) > 1 and not began else None
    )
    monkeypatch.setattr("flows.edit_video.edit_video", lambda *_: began.append(len(away)) or fail())

    def fail() -> None:
        raise TaskInputError("begun")

    run(request_, settings)
    assert began == [1, 1, 1]
    assert list(latest(settings)["attempts"].value_counts().items()) == [(1, 3), (0, 1)]


def test_what_prefect_sends_to_a_dask_worker_with_each_stage_of_a_row_can_be_pickled(
    server: str, request_: DatasetRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    def send(*_: Any) -> None:
        sent.append(len(cloudpickle.dumps(serialize_context())))
        raise TaskInputError("sent")

    monkeypatch.setattr("flows.edit_video.edit_video", send)
    assert set(run(request_, settings).counts.items()) >= {("failed", 4)}
    assert set(latest(settings)["message"]) >= {"sent"}
    assert len(sent) == 3
    assert max(sent) < 100_000


def test_a_row_that_was_cancelled_has_not_failed_and_is_not_tried_again(
    server: str, request_: DatasetRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def cancel(edit: Any, _: Any) -> None:
        asked.append(edit.prompt)
        raise CancelledRun("The run was cancelled.")

    monkeypatch.setattr("flows.edit_video.edit_video", cancel)
    result = run(request_.model_copy(update={"attempts": 3, "max_failures": "1"}), settings)
    assert (result.counts["cancelled"], result.counts["failed"], result.stopped, result.exit_code) == (3, 1, "", 1)
    assert len(asked) == 3
    assert list(latest(settings)["state"].value_counts().items()) == [("cancelled", 3), ("failed", 1)]


def test_rows_that_an_interrupted_run_leaves_do_not_count_as_having_killed_their_workers(
    server: str, request_: DatasetRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_settle", lambda *_: (_ for _ in ()).throw(RuntimeError("interrupted")))
        for _ in range(2):
            with pytest.raises(RuntimeError, match="interrupted"):
                run(request_, settings)
    table = StatusTable(Workspace.open(settings.workspace), "set")
    assert not len(table.lost())
    assert set(table.latest()["state"]) <= {"cancelled", "failed", "done"}
    counts = run(request_, settings).counts
    assert (counts["done"] + counts["skipped"], counts["failed"], counts["quarantined"]) == (3, 1, 0)


def test_rows_that_ran_when_a_worker_died_run_alone_and_last_and_only_one_that_kills_two_is_set_aside(
    server: str, request_: DatasetRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = StatusTable(Workspace.open(settings.workspace), "set")
    started: list[tuple[str, list[str]]] = []
    submit = module._submit

    def start(run: Any, item: Any, ended: Any) -> None:
        running = [key[0] for key in run.attempts if key not in run.outcomes]
        started.append((item.row.id, running))
        submit(run, item, ended)

    monkeypatch.setattr(module, "_submit", start)
    table.append([StatusRecord(id=name, state="running", attempts=1) for name in ("one-blue", "one-green")])
    table.append(StatusRecord(id="one-blue", state="running", attempts=1))
    counts = run(request_, settings.model_copy(update={"max_clips": 3})).counts
    assert started == [("two-blue", []), ("one-green", [])]
    assert (counts["done"], counts["quarantined"]) == (2, 1)
    assert latest(settings).loc["one-blue", "state"] == "quarantined"
    # It stays so, until a run asks for it alone
    started.clear()
    counts = run(request_, settings).counts
    assert (counts["skipped"], counts["quarantined"], started) == (2, 1, [])
    alone = request_.model_copy(update={"where": "id = 'one-blue'"})
    assert run(alone, settings).counts["done"] == 1
    assert started == [("one-blue", [])]


def test_only_results_are_kept_of_clips_with_all_their_rows_done(
    server: str, request_: DatasetRequest, settings: WaveSettings, folder: Path
) -> None:
    result = run(request_.model_copy(update={"keep": "results"}), settings)
    assert str(result) == "3 done, 0 skipped, 1 failed"
    workspace = Workspace.open(settings.workspace)
    kinds = {artifact.kind for artifact in take_inventory(workspace).artifacts}
    assert kinds == {"video", "report"}
    assert str(run(request_, settings)) == "0 done, 3 skipped, 1 failed"


def test_outputs_go_to_an_object_store_or_into_tar_files(
    server: str, request_: DatasetRequest, settings: WaveSettings, folder: Path
) -> None:
    bucket = f"memory://{folder.name}"
    assert run(request_.model_copy(update={"output": f"{bucket}/out"}), settings).counts["done"] == 3
    names = {"one-blue", "one-green", "two-blue"}
    found = Workspace.open(bucket).files.sizes("out")
    assert set(found) == {f"{name}.mp4{end}" for name in names for end in ("", ".provenance.json")} | {"metadata.csv"}
    # The same rows, now as tar files: nothing is computed again
    assert run(request_.model_copy(update={"layout": "webdataset"}), settings).counts["skipped"] == 3
    with tarfile.open(folder / "out" / "000000.tar") as tar:
        sizes = {member.name: member.size for member in tar}
    assert set(sizes) == {f"{name}.{suffix}" for name in names for suffix in ("mp4", "json", "provenance.json")}
    assert all(sizes[f"{name}.mp4"] == found[f"{name}.mp4"] for name in names)


def test_what_is_not_kept_of_a_clip_is_freed_before_the_next_clip_is_done(
    server: str, request_: DatasetRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(settings.workspace)
    seen: list[tuple[str, list[str]]] = []
    tidy = module._tidy

    def look(run: Any, item: Any) -> None:
        tidy(run, item)
        found = take_inventory(workspace).artifacts
        seen.append((item.row.id, sorted(f"{found_.kind} of {found_.clip[:4]}" for found_ in found)))

    monkeypatch.setattr(module, "_tidy", look)
    one_at_a_time = settings.model_copy(update={"max_clips": 1})
    assert run(request_.model_copy(update={"keep": "edits"}), one_at_a_time).counts["done"] == 3
    assert [row for row, _ in seen] == ["one-blue", "one-green", "two-blue"]
    first, second, third = (found for _, found in seen)
    clip = first[0].rpartition(" ")[2]
    assert f"inversion of {clip}" in first  # the other row of the clip needs it
    kinds = ["frames", "frames", "keyframes", "keyframes", "report", "report", "video", "video"]
    assert second == [f"{kind} of {clip}" for kind in kinds]
    assert len(third) == len(second) + 4


def test_clips_wait_for_one_another_where_the_disk_budget_is_spent(
    server: str, request_: DatasetRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    submit, settle = module._submit, module._settle

    def starts(run: Any, item: Any, ended: Any) -> None:
        events.append("start")
        submit(run, item, ended)

    def ends(run: Any, item: Any, state: Any) -> str:
        events.append("end")
        return settle(run, item, state)

    monkeypatch.setattr(module, "_submit", starts)
    monkeypatch.setattr(module, "_settle", ends)
    limited = settings.model_copy(update={"max_clips": 3, "disk_budget": 1})
    assert run(request_, limited).counts["done"] == 3
    assert events == ["start", "end"] * 3


def test_a_run_stops_by_itself_before_the_disk_is_full(
    server: str, request_: DatasetRequest, settings: WaveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(request_, settings.model_copy(update={"disk_reserve": 10**18}))
    assert result.stopped.startswith("the disk is full: ")
    assert (result.counts["done"], result.counts["running"], result.exit_code) == (0, 3, 1)
    assert "running" not in set(latest(settings)["state"])
    assert run(request_, settings).counts["done"] == 3


def test_a_dry_run_says_what_is_computed_and_shared_and_writes_nothing(
    request_: DatasetRequest, manifest: Path, sd15: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    for name in [name for name in os.environ if name.startswith("WAVE_")]:
        monkeypatch.delenv(name)
    options = ["--set", f"model={sd15}", "--set", "steps=1", "--workspace", str(folder / "workspace"), "--dry-run"]
    monkeypatch.setattr(sys, "argv", ["wave", "dataset", str(manifest), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr().out
    assert not ended.value.code
    for words in ("rows", "cannot be edited", "to compute", "2 for 3 rows"):
        assert words in said
    assert not (folder / "workspace").exists()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TaskInputError("bad"), "input"),
        (OSError(errno.ENOSPC, "full"), "disk full"),
        (TimeoutError(), "transient"),
        (MemoryError(), "memory"),
        (ZeroDivisionError(), "unexpected"),
    ],
)
def test_errors_have_a_kind(error: BaseException, kind: str) -> None:
    assert error_kind(error) == kind
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = error
    if kind in {"disk full", "transient", "memory"}:
        assert error_kind(wrapped) == kind


def test_a_run_stops_by_itself() -> None:
    budget = FailureBudget(allowed=None, in_a_row=3)
    assert [budget.fail("transient", "gone") for _ in range(3)][:2] == ["", ""]
    assert "3 rows in a row" in budget.fail("transient", "gone") or budget.failed == 4
    assert FailureBudget(allowed=5).fail("disk full", "x") == "the disk is full"
    assert FailureBudget(allowed=0).fail("input", "x").startswith("failed rows: 1")
    budget = FailureBudget(allowed=None, in_a_row=2)
    budget.fail("input", "a")
    budget.succeed()
    assert budget.fail("input", "a") == ""
