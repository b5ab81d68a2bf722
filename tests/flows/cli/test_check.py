from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from flows.cli import main
from storage.video import FrameReader, probe, write_video
from tests._clips import save_clip


def run(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["wave", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def edited(clip: Path, tmp_path: Path) -> Path:
    """Return a video like the clip."""
    reader, path = FrameReader(clip), tmp_path / "edited.mp4"
    pairs = list(reader)
    write_video(
        path,
        [255 - frame for _, frame in pairs],
        timestamps=[time for time, _ in pairs],
        time_base=probe(clip).time_base,
        last_duration=reader.last_duration,
    )
    return path


def test_a_good_edit_ends_with_0_and_a_line_for_each_check(
    clip: Path, edited: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(clip, edited, monkeypatch=monkeypatch) == 0
    lines = capfd.readouterr().out.strip().splitlines()
    assert "ok   frames: 7; 7" in lines
    assert {line[:5] for line in lines} == {"ok   "}


def test_a_wrong_edit_ends_with_1_and_says_what_is_wrong(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(clip, save_clip(tmp_path / "short.mp4", frames=6), monkeypatch=monkeypatch) == 1
    assert "fail frames: 7; 6" in capfd.readouterr().out.splitlines()


def test_json_is_one_object_and_nothing_else(
    clip: Path, edited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(clip, edited, "--json", monkeypatch=monkeypatch) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["passed"] is True
    assert found["notes"] == []
    assert {"name": "frames", "passed": True, "source": "7", "output": "7"} in found["checks"]
    assert run(clip, save_clip(tmp_path / "short.mp4", frames=6), "--json", monkeypatch=monkeypatch) == 1
    assert json.loads(capfd.readouterr().out)["passed"] is False


def test_a_file_that_is_not_there_is_one_sentence(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(clip, "absent.mp4", monkeypatch=monkeypatch) == 1
    said = capfd.readouterr().err.strip()
    assert said.startswith("wave: there is no file absent.mp4")
    assert "\n" not in said
