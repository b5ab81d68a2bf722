"""`wave rehearse`: what it refuses, and the rehearsal itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import main
from flows.rehearsal import parts
from tasks.services.postgres import find_postgres
from tasks.services.seaweed import find_seaweed
from tests._prefect import ROOT


@pytest.mark.parametrize(
    ("options", "program", "words"),
    [
        (["--postgres"], "find_postgres", "PostgreSQL is not installed"),
        (["--s3"], "find_seaweed", "SeaweedFS is not installed"),
        (["--pictures", "pictures"], "find_chromium", "Chromium is not installed"),
        (["--folder", "."], "find_postgres", "exists: name a new one"),
    ],
)
def test_what_is_missing_is_one_sentence_before_anything_starts(
    options: list[str],
    program: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(parts, program, lambda: None)
    monkeypatch.setattr("flows.rehearsal.dataset.draw_dataset", lambda *_: pytest.fail("nothing may start"))
    monkeypatch.setattr(sys, "argv", ["wave", "rehearse", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capfd.readouterr().err.strip()
    assert words in said
    assert "\n" not in said


def rehearsed(*options: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "flows.cli", "rehearse", "--rows", "16", "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_data_set_is_complete_and_nothing_computed_twice_whatever_dies() -> None:
    records = rehearsed()
    assert len(records) > 15
    assert [each for each in records if each["holds"] is False] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_same_is_true_on_postgresql_an_object_store_and_a_dask_cluster() -> None:
    if find_postgres() is None or find_seaweed() is None:
        pytest.skip("PostgreSQL or SeaweedFS is not installed")
    records = rehearsed("--postgres", "--s3", "--dask")
    assert len(records) > 15
    assert [each for each in records if each["holds"] is False] == []
