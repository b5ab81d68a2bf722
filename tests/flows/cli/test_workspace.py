from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from flows.cli import main
from flows.cli.workspace import parse_age, parse_size
from storage.claims import claim
from storage.inventory import take_inventory
from storage.status_table import RowState, StatusRecord, StatusTable
from storage.tables import append_run
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.planning.stages import STAGES
from tests._inventory import EDITED, FINISHED, INTERMEDIATE, RESULTS, add

Wave = Callable[..., tuple[int, str, str]]


@pytest.fixture
def wave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Wave:
    """Return a function that runs the command on a workspace and returns its exit code, stdout and stderr."""
    for name in [name for name in os.environ if name.startswith("WAVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wave", *arguments, "--workspace", str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def fill(workspace: Workspace) -> None:
    table = StatusTable(workspace, "nightly", run="r1")
    table.append(StatusRecord(id=f"d{n}", state="done", metrics={"psnr": math.inf}) for n in range(148))
    table.append(StatusRecord(id=f"s{n}", state="skipped") for n in range(4))
    table.append([StatusRecord(id="f0", state="running"), StatusRecord(id="x", state="running")])
    bad = {"state": "failed", "error_kind": "bad input"}
    table.append(StatusRecord(id=f"f{n}", message=f"f{n}.mp4 is not a video", **bad) for n in range(5))  # type: ignore[arg-type]
    table.append(StatusRecord(id="g", state="failed", message="of no [kind]", manifest={"seed": 3}))
    table.append(StatusRecord(id="q", state="quarantined", error_kind="lost", message="its worker died twice"))
    StatusTable(workspace, "weekly").append(StatusRecord(id="a", state="done"))


def line(text: str, *words: str) -> list[str]:
    """Return the words of the only line that contains some words."""
    (found,) = [line for line in text.splitlines() if all(word in line for word in words)]
    return found.split()


# --- wave status --------------------------------------------------------------------------------------------------


def test_without_a_name_the_data_sets_are_listed_with_their_rows_by_state(wave: Wave, workspace: Workspace) -> None:
    fill(workspace)
    code, out, _ = wave("status")
    assert code == 0
    assert line(out, "data set") == ["data", "set", "done", "skipped", "failed", "quarantined", "cancelled", "running"]
    assert line(out, "nightly") == ["nightly", "148", "4", "6", "1", "0", "1"]
    assert line(out, "weekly") == ["weekly", "1", "0", "0", "0", "0", "0"]
    _, out, _ = wave("status", "--json")
    assert [json.loads(row) for row in out.splitlines()] == [
        {"dataset": "nightly", "done": 148, "skipped": 4, "failed": 6, "quarantined": 1, "cancelled": 0, "running": 1},
        {"dataset": "weekly", "done": 1, "skipped": 0, "failed": 0, "quarantined": 0, "cancelled": 0, "running": 0},
    ]


def test_a_data_set_is_printed_as_totals_and_its_failed_rows_by_cause(wave: Wave, workspace: Workspace) -> None:
    fill(workspace)
    code, out, _ = wave("status", "nightly")
    assert code == 0
    assert " ".join(line(out, "bad input")) == "failed bad input 5 f0.mp4 is not a video f0, f1, f2, ..."
    assert " ".join(line(out, "of no")) == "failed unknown 1 of no [kind] g"
    assert " ".join(line(out, "died twice")) == "quarantined lost 1 its worker died twice q"
    assert out.index("bad input") < out.index("died twice")
    assert out.splitlines()[-1] == "148 done, 4 skipped, 6 failed, 1 quarantined, 1 running"


def test_a_data_set_without_failures_is_its_totals_alone(wave: Wave, workspace: Workspace) -> None:
    fill(workspace)
    assert wave("status", "weekly")[1] == "1 done, 0 skipped, 0 failed\n"


def test_json_is_one_object_per_row_with_the_same_names_and_nothing_else(wave: Wave, workspace: Workspace) -> None:
    fill(workspace)
    _, out, _ = wave("status", "nightly", "--json")
    rows = {row["id"]: row for row in map(json.loads, out.splitlines())}
    assert len(rows) == len(out.splitlines()) == 160
    assert len({tuple(row) for row in rows.values()}) == 1
    assert rows["g"] | {"finished": "", "record": ""} == {
        "id": "g",
        "variant": 0,
        "state": "failed",
        "attempts": 0,
        "error_kind": "",
        "message": "of no [kind]",
        "digest": "",
        "output": "",
        "finished": "",
        "run": "r1",
        "metric_psnr": None,
        "manifest_seed": 3,
        "record": "",
    }
    assert rows["g"]["finished"].endswith("+00:00")
    assert rows["d0"]["metric_psnr"] is None  # infinity, which JSON does not have
    assert rows["x"]["finished"] is None


def test_an_unknown_data_set_is_refused_with_the_nearest_name(wave: Wave, workspace: Workspace) -> None:
    assert wave("status") == (0, f"There is no data set in {workspace.url}\n", "")
    assert wave("status", "--json") == (0, "", "")
    fill(workspace)
    code, out, err = wave("status", "nightl")
    assert (code, out) == (1, "")
    assert err == f"wave: There is no data set 'nightl' in {workspace.url}: did you mean nightly?\n"


# --- wave gc ------------------------------------------------------------------------------------------------------


def age(workspace: Workspace, hours: float, below: str = "clips") -> None:
    then = time.time() - 3600 * hours
    for path in Path(workspace.url, below).rglob("*"):
        os.utime(path, (then, then))


def complete(workspace: Workspace) -> set[str]:
    return {artifact.path for artifact in take_inventory(workspace).artifacts if artifact.complete}


def test_by_default_the_intermediates_of_quiet_finished_clips_are_freed(wave: Wave, workspace: Workspace) -> None:
    add(workspace, FINISHED)
    code, out, _ = wave("gc")
    assert code == 0
    assert "Freed 0 bytes" in out
    assert "its clip was written to recently" in out
    assert complete(workspace) == set(FINISHED)
    age(workspace, 2)
    before = workspace.usage()
    _, out, _ = wave("gc")
    assert complete(workspace) == set(EDITED | RESULTS)
    assert line(out, "inversion")[:2] == ["inversion", "1"]
    freed = before - workspace.usage()
    assert f"Freed {freed / 1000:.1f} kB" in out


def test_a_dry_run_prints_the_same_and_frees_nothing(wave: Wave, workspace: Workspace) -> None:
    add(workspace, FINISHED)
    age(workspace, 2)
    _, planned, _ = wave("gc", "--keep", "results", "--dry-run")
    assert complete(workspace) == set(FINISHED)
    _, done, _ = wave("gc", "--keep", "results")
    assert planned.replace("Would free", "Freed") == done
    assert complete(workspace) == set(RESULTS)


def test_age_size_and_clip_narrow_what_is_freed(wave: Wave, workspace: Workspace) -> None:
    other = {path.replace("c1", "c2c2c2c2", 1) for path in FINISHED}
    add(workspace, [*FINISHED, *other])
    append_run(workspace, [{"clip": "race", "clip_digest": "c1"}, {"clip": "gone", "clip_digest": "c9"}], run="r")
    age(workspace, 48)
    wave("gc", "--older-than", "3d")
    wave("gc", "--larger-than", "1MB")
    assert complete(workspace) == set(FINISHED) | other
    wave("gc", "--clip", "race")
    assert complete(workspace) == set(EDITED | RESULTS) | other
    wave("gc", "--clip", "c2c2c2", "--older-than", "1d", "--larger-than", "100")
    assert complete(workspace) == {
        path for path in set(FINISHED) | other if path.replace("c2c2c2c2", "c1") not in INTERMEDIATE
    }


def record_clip(workspace: Workspace, dataset: str, *clips: str, state: RowState = "done") -> None:
    table = StatusTable(workspace, dataset)
    table.append(StatusRecord(id=clip, state=state, manifest={"identity_source": clip}) for clip in clips)


def test_a_data_set_narrows_what_is_freed_to_its_clips(wave: Wave, workspace: Workspace) -> None:
    by_clip = {clip: {path.replace("c1", clip, 1) for path in FINISHED} for clip in ("c1", "c2", "c3")}
    add(workspace, set.union(*by_clip.values()))
    record_clip(workspace, "nightly", "c1", "c2")
    record_clip(workspace, "weekly", "c3")
    age(workspace, 2)
    wave("gc", "--dataset", "nightly", "--clip", "c2")
    kept = {path.replace("c1", "c2", 1) for path in EDITED | RESULTS}
    assert complete(workspace) == by_clip["c1"] | kept | by_clip["c3"]
    wave("gc", "--dataset", "weekly")
    assert complete(workspace) == by_clip["c1"] | kept | {path.replace("c1", "c3", 1) for path in EDITED | RESULTS}


def test_what_a_running_job_computes_is_not_freed_whatever_is_asked_for(wave: Wave, workspace: Workspace) -> None:
    add(workspace, FINISHED)
    age(workspace, 48)
    with claim(workspace, "clips/c1/edits/p2/frames/000000-000004"):
        _, out, _ = wave("gc", "--older-than", "0", "--keep", "results")
    assert "a running job uses it" in out
    assert complete(workspace) == set(FINISHED)
    wave("gc", "--older-than", "0", "--keep", "results")
    assert complete(workspace) == set(RESULTS)


def test_a_clip_of_a_row_that_runs_is_not_freed(wave: Wave, workspace: Workspace) -> None:
    add(workspace, FINISHED)
    age(workspace, 48)
    record_clip(workspace, "nightly", "c1", state="running")
    _, out, _ = wave("gc", "--older-than", "0")
    assert "a running job uses it" in out
    assert complete(workspace) == set(FINISHED)
    record_clip(workspace, "nightly", "c1", state="failed")
    wave("gc", "--older-than", "0")
    assert complete(workspace) == set(EDITED | RESULTS)


def test_a_row_that_began_days_ago_is_taken_for_dead(
    wave: Wave, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(workspace, FINISHED)
    age(workspace, 48)
    record_clip(workspace, "nightly", "c1", state="running")
    monkeypatch.setattr("flows.cli.workspace._ROW_TIME", timedelta(0))
    wave("gc")
    assert complete(workspace) == set(EDITED | RESULTS)


def test_what_killed_processes_left_of_their_claims_is_removed(wave: Wave, workspace: Workspace) -> None:
    add(workspace, FINISHED)
    age(workspace, 48)
    left = "claims/clips/c1/inversion/i1.lock"
    workspace.files.write(left, b"")
    wave("gc", "--dry-run")
    assert left in workspace.files.sizes()
    _, out, _ = wave("gc")
    assert "a running job" not in out
    assert complete(workspace) == set(EDITED | RESULTS)
    assert workspace.files.sizes("claims") == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--dataset", "nightl"), "no data set 'nightl'"),
        (("--keep", "nothing"), "results, edits, all, got 'nothing'"),
        (("--older-than", "old"), "age 'old' is not"),
        (("--larger-than", "big"), "size 'big' is not"),
        (("--clip", "rac"), "no clip 'rac'"),
        (("--clip", ""), "no clip ''"),
    ],
)
def test_bad_options_get_one_sentence_and_nothing_is_freed(
    options: tuple[str, ...], words: str, wave: Wave, workspace: Workspace
) -> None:
    add(workspace, FINISHED)
    age(workspace, 2)
    code, _, err = wave("gc", *options)
    assert code == 1
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert complete(workspace) == set(FINISHED)


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604800), ("12h", 43200), ("1.5 H", 5400), ("30m", 1800), ("2w", 1209600), ("0", 0)]
)
def test_ages_have_units(text: str, seconds: int) -> None:
    assert parse_age(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["7", "d", "-1d", "7 years", "", "9999999999w"])
def test_an_age_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(TaskInputError, match="is not a number with a unit"):
        parse_age(text)


@pytest.mark.parametrize(
    ("text", "size"), [("1GB", 10**9), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8), ("10", 10), ("2k", 2000), ("0", 0)]
)
def test_sizes_are_decimal_or_binary(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["GB", "-1GB", "1 PB", "1ib", ""])
def test_a_size_that_is_not_a_number_is_refused(text: str) -> None:
    with pytest.raises(TaskInputError, match="is not a number of bytes"):
        parse_size(text)


@pytest.mark.parametrize("shot", ["", "/s"])
@pytest.mark.parametrize("part", ["", "excerpts/d/"])
@pytest.mark.parametrize("variant", ["", "_full", "-0a1b", "_full-0a1b"])
def test_the_artifacts_of_every_stage_have_a_kind_of_their_own(
    variant: str, part: str, shot: str, workspace: Workspace
) -> None:
    names = {"digest": "d", "edits": "p", "variant": variant, "shot": shot, "part": part}
    paths = [f"clips/c1/{spec.path.format(**names)}" for spec in STAGES]
    add(workspace, paths)
    found = take_inventory(workspace).artifacts
    assert {artifact.path for artifact in found} == set(paths)
    assert {artifact.kind for artifact in found} == set(FINISHED.values())
