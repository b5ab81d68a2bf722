"""`wave evaluate` through a Prefect server, on a small comparison and a tiny checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.cli import main
from flows.evaluate import evaluate
from flows.planning import plan_evaluation_request
from flows.settings import WaveSettings
from tasks.errors import TaskInputError
from tasks.evaluation.request import EvaluationRequest, command_line, evaluation_request
from tests._evaluation import CoarseCopies, with_coarse

ROOT = Path(__file__).parents[2]
REGISTRY = "tasks.evaluation.comparisons.registry.COMPARISONS"
KILLED = """
import pytest, sys, time
from tests._evaluation import CoarseCopies, with_coarse
from flows.cli import main
measure = CoarseCopies.measure
def slowly(*arguments):
    for method, outcome in measure(*arguments):
        yield method, outcome
        time.sleep(1.5)
CoarseCopies.measure = slowly
with_coarse(pytest.MonkeyPatch())
main()
"""


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> CoarseCopies:
    for name in [name for name in os.environ if name.startswith("WAVE_")]:
        monkeypatch.delenv(name)
    return with_coarse(monkeypatch)


def request_of(sd15: Path, **fields: Any) -> EvaluationRequest:
    return evaluation_request(comparison="coarse", model=str(sd15), controlnet="none", **fields)


def ask(server: str, what: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.post(f"{server}/{what}/filter", json=query, timeout=30).json()
    return found


def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["wave", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    output = capfd.readouterr()
    return int(ended.value.code or 0), output.out, output.err


def test_the_flow_writes_its_results_and_reports_to_the_server(
    server: str, coarse: CoarseCopies, sd15: Path, tmp_path: Path
) -> None:
    settings = WaveSettings(workspace=str(tmp_path / "workspace"), max_tasks=2)
    results = evaluate(request_of(sd15), settings, str(tmp_path / "out"))
    assert len(coarse.computed) == 4 * 3
    assert (tmp_path / "out" / "report.html").is_file()
    (run,) = ask(server, "flow_runs", sort="START_TIME_DESC", limit=1)
    assert run["name"] == "coarse on 4 clips"
    (shown, *_) = ask(server, "artifacts", artifacts={"key": {"any_": ["evaluation-coarse"]}}, sort="CREATED_DESC")
    assert "| every 4 | 4 |" in shown["data"]
    evaluate(request_of(sd15), settings, str(tmp_path / "again"))
    assert len(coarse.computed) == 4 * 3
    assert (tmp_path / "again" / "table.md").read_text() == (tmp_path / "out" / "table.md").read_text()
    assert results.clips == ("calm-00", "hard-01", "calm-02", "hard-03")


def test_task_runs_are_named_by_clip(server: str, coarse: CoarseCopies, sd15: Path, tmp_path: Path) -> None:
    evaluate(request_of(sd15, quick=True), WaveSettings(workspace=str(tmp_path)), str(tmp_path / "out"))
    expected = {"calm-00: 2 methods", "hard-01: 2 methods", "Write tables and report"}
    for _ in range(50):
        (run,) = ask(server, "flow_runs", sort="START_TIME_DESC", limit=1)
        names = {task["name"] for task in ask(server, "task_runs", flow_runs={"id": {"any_": [run["id"]]}})}
        if names == expected:
            return
        time.sleep(0.2)
    assert names == expected


def test_the_error_names_the_failed_clip_and_the_others_are_stored(
    server: str, sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = WaveSettings(workspace=str(tmp_path / "workspace"), max_tasks=1)
    with_coarse(monkeypatch, fails_at=("calm-00", "every 4"))
    with pytest.raises(TaskInputError, match="coarse on the clip calm-00, method 'every 4': the grid is too coarse"):
        evaluate(request_of(sd15), settings, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    repaired = with_coarse(monkeypatch)
    evaluate(request_of(sd15), settings, str(tmp_path / "out"))
    assert sorted(repaired.computed) == [("calm-00", "every 4"), ("calm-00", "every 8")]


def test_with_json_stdout_contains_one_object_per_metric_and_nothing_else(
    server: str,
    coarse: CoarseCopies,
    sd15: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    options = ["coarse", "--quick", "--json", "--model", sd15, "--workspace", tmp_path / "w", "-o", tmp_path / "out"]
    code, out, _ = command(monkeypatch, capfd, *options)
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["metric"] for line in lines][:3] == ["PSNR/every 2", "PSNR/every 4", "size/every 2"]
    assert all(list(line) == ["bench", "metric", "value", "unit", "target", "holds"] for line in lines)
    by_name = {line["metric"]: line for line in lines}
    assert (by_name["PSNR/every 2"]["target"], by_name["PSNR/every 2"]["holds"]) == (15, True)
    assert by_name["size/every 4"]["holds"] is False
    assert by_name["LPIPS/every 4"]["value"] is None
    assert out == (tmp_path / "out" / "lines.jsonl").read_text()


def test_without_json_tables_of_80_columns_are_printed(
    server: str,
    coarse: CoarseCopies,
    sd15: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    code, out, _ = command(monkeypatch, capfd, "coarse", "--quick", "--model", sd15)
    assert code == 0
    for words in ("PSNR (dB) ↑", "the baseline", "every 4", "at least 15 dB", "evaluation/coarse/report.html"):
        assert words in out
    assert max(map(len, out.splitlines())) <= 80


def test_without_a_name_the_comparisons_are_listed(
    coarse: CoarseCopies, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(REGISTRY, {"coarse": "tests._evaluation:COARSE", "lost": "x:Y"})
    code, out, _ = command(monkeypatch, capfd)
    assert code == 0
    assert "How coarse may <b>a copy</b> be?" in out
    assert "The comparison 'lost' cannot be loaded" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inverson"], "did you mean inversion?"),
        (["coarse", "--clips", "0"], "clips cannot be 0"),
        (["coarse", "--clips", "few"], "valid integer"),
        (["coarse", "--seed", "-1"], "seed cannot be -1"),
        (["coarse", "--flow", "gmflow"], "flow cannot be 'gmflow'"),
        (["coarse", "--model", "nothing"], "Unknown model 'nothing'"),
        (["coarse", "--model", "MODEL", "--lpips", "no.safetensors"], "no LPIPS weights at no.safetensors"),
        (["coarse", "--model", "MODEL", "--manifest", "no.csv"], "There is no manifest no.csv"),
        (["coarse", "-o", "MODEL/model_index.json"], "is not a writable folder"),
        (["coarse", "--model", "MODEL", "--workspace", "MODEL/model_index.json"], "workspace"),
    ],
)
def test_invalid_input_is_a_one_line_error(
    arguments: list[str],
    words: str,
    coarse: CoarseCopies,
    sd15: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.cli.evaluate.connect", lambda **_: None)
    code, out, err = command(monkeypatch, capfd, *(argument.replace("MODEL", str(sd15)) for argument in arguments))
    assert code != 0
    assert words in err
    assert err.strip().startswith("wave: ")
    assert "\n" not in err.strip()
    assert out == ""


def test_the_command_line_repeats_the_request() -> None:
    request = EvaluationRequest(comparison="inversion", quick=True, clips=3, model="a b", lpips="x")
    assert command_line(request) == "wave evaluate inversion --quick --clips 3 --model 'a b' --lpips x"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"baseline": "none"}, "does not run its baseline 'none'"),
        ({"factors": (2, 2)}, "two methods 'every 2'"),
    ],
)
def test_an_inconsistent_comparison_is_an_error(
    changes: dict[str, Any], words: str, sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_coarse(monkeypatch, **changes)
    with pytest.raises(TaskInputError, match=words):
        plan_evaluation_request(request_of(sd15), WaveSettings(workspace=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_command_loses_at_most_one_method(server: str, sd15: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    arguments = [sys.executable, "-c", KILLED, "evaluate", "coarse", "--clips", "1", "--model", str(sd15)]
    arguments += ["--workspace", str(workspace), "-o", str(tmp_path / "out")]
    environment = os.environ | {"PREFECT_API_URL": server, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(arguments, env=environment)
    try:
        while len(list(workspace.rglob("complete.json"))) < 2:
            assert first.poll() is None
            time.sleep(0.02)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    kept = {path: path.stat().st_mtime_ns for path in workspace.rglob("complete.json")}
    assert 2 <= len(kept) < 3
    subprocess.run(arguments, env=environment, check=True)
    assert len(list(workspace.rglob("complete.json"))) == 3
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
