from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from flows.cli import main
from tasks.evaluation.bench import _interval


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("tasks.evaluation.bench.propagation._QUICK_SIZE", (24, 24))
    monkeypatch.setattr(_interval, "_probe", lambda size, length: {"before": 100, "peak": 200, "seconds": 6})


def run(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["wave", "bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_with_json_stdout_contains_records_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("propagation", "--quick", "--json", monkeypatch=monkeypatch) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(lines) > 15
    assert {tuple(line) for line in lines} == {("bench", "metric", "value", "unit", "target", "holds")}
    assert {line["bench"] for line in lines} == {"propagation"}


def test_without_json_one_table_is_printed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("propagation", "--quick", monkeypatch=monkeypatch) == 0
    output = capfd.readouterr().out
    for words in ("target", "value", "met", "fusion deviation", "at most 0.0001 of 255", "interval CPU seconds"):
        assert words in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["speed"], "Unknown bench 'speed'"),
        ([], "Missing argument"),
        (["propagation", "--ebsynth-pairs", "nothing"], "no folder nothing"),
        (["propagation", "--video", "nothing.mp4"], "no file nothing.mp4"),
    ],
)
def test_invalid_input_is_a_one_line_error(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, monkeypatch=monkeypatch) != 0
    output = capfd.readouterr().err.strip()
    assert output.startswith("wave: ")
    assert words in output
    assert "\n" not in output
