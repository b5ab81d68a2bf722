from __future__ import annotations

from pathlib import Path

import pytest

from storage.status_table import StatusTable
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.evaluation.bench import orchestration
from tasks.evaluation.bench._bulk import save_clips, save_complete_results, save_manifest, save_source_facts
from tasks.evaluation.bench._processes import Spent, WaveProcess, run_wave
from tasks.evaluation.bench.measurements import BenchRequest, Measurement, chosen_sections
from tasks.evaluation.bench.orchestration import BENCH
from tasks.planning.bulk import BulkPlan, plan_rows
from tasks.planning.dataset import dataset_request
from tasks.planning.plan import Execution
from tasks.planning.rows import read_rows


def plan(manifest: Path, folder: Path) -> BulkPlan:
    rows = read_rows(dataset_request(source=str(manifest)))
    return plan_rows(rows, execution=Execution(workspace=str(folder / "workspace")), remember=False)


def measured(section: str, request: BenchRequest) -> dict[str, Measurement]:
    (chosen,) = chosen_sections(BENCH.sections(request), [section])
    return {found.measure.name: found for found in chosen.measure()}


def test_every_clip_is_another_source_and_the_rows_go_around_them(tmp_path: Path) -> None:
    clips = save_clips(tmp_path, 3)
    bulk = plan(save_manifest(tmp_path, clips, rows=7), tmp_path)
    assert [item.error for item in bulk.rows] == [""] * 7
    assert len({item.identity["source"] for item in bulk.rows}) == 3
    assert len({item.identity["result"] for item in bulk.rows}) == 7


def test_results_of_an_earlier_run_make_every_row_complete_and_done(tmp_path: Path) -> None:
    manifest = save_manifest(tmp_path, save_clips(tmp_path, 2), rows=5)
    assert not any(item.complete for item in plan(manifest, tmp_path).rows)
    save_complete_results(manifest, tmp_path)
    assert all(item.complete for item in plan(manifest, tmp_path).rows)
    latest = StatusTable(Workspace.open(tmp_path / "workspace"), "set").latest()
    digests = {item.row.id: item.identity["result"] for item in plan(manifest, tmp_path).rows}
    assert dict(zip(latest["id"], latest["digest"], strict=True)) == digests


def test_known_sources_are_not_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = save_clips(tmp_path, 2)
    save_source_facts(clips, tmp_path)
    monkeypatch.setattr("tasks.planning.source_facts._inspect", lambda source: pytest.fail(source))
    plan(save_manifest(tmp_path, clips, rows=3), tmp_path)


def test_each_section_can_be_chosen_and_an_unknown_one_is_refused() -> None:
    sections = BENCH.sections(BenchRequest())
    assert [section.title for section in chosen_sections(sections, [])] == [
        "planning",
        "rerun",
        "share",
        "memory",
        "throughput",
    ]
    assert [section.title for section in chosen_sections(sections, ["memory", "rerun"])] == ["rerun", "memory"]
    with pytest.raises(TaskInputError, match="Unknown section 'speed' of the bench; choose from planning, rerun"):
        chosen_sections(sections, ["memory", "speed"])


def test_targets_apply_to_the_number_of_rows_that_they_are_set_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestration, "run_wave", lambda *_, **__: Spent(wall=3.0, cpu=2.0))
    found = measured("planning", BenchRequest(rows=200))["planning CPU"]
    assert (found.subject, found.value, found.measure.target) == ("200 rows, 2 known sources", 2.0, None)
    monkeypatch.setattr(orchestration, "save_manifest", lambda folder, clips, rows: folder)
    monkeypatch.setattr(orchestration, "save_clips", lambda folder, count: [])
    assert measured("planning", BenchRequest())["planning CPU"].measure.target == 60.0


def test_a_program_that_fails_is_one_sentence() -> None:
    with pytest.raises(TaskInputError, match=r"flows.cli status ended with code \d+: .*nothing"):
        run_wave("status", "--nothing")


def test_the_memory_of_a_program_that_has_ended_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.evaluation.bench._processes._WATCH_SECONDS", 0.0)
    process = WaveProcess("--version")
    seen = list(process.watch())
    process.check()
    assert min(seen) > 1


def test_planning_is_measured_by_the_command_itself() -> None:
    found = measured("planning", BenchRequest(quick=True))["planning CPU"]
    assert found.value is not None
    assert found.value > 0.5


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("section", ["rerun", "share", "memory", "throughput"])
def test_a_run_is_measured_against_a_server_of_the_benchs_own(section: str) -> None:
    found = measured(section, BenchRequest(quick=True))
    assert len(found) >= 2
    assert all(item.value is not None for item in found.values())
    if section == "share":
        # That in the client is a difference of two runs: with a few clips it is smaller than its noise
        assert found["Prefect's server, CPU per clip"].value > 0  # type: ignore[operator]
