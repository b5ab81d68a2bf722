from __future__ import annotations

import json
import math

import pytest

from tasks.evaluation.comparisons.comparison import Measure
from tasks.evaluation.report.jsonl import json_lines, result_records
from tests._evaluation import make_results

UP = Measure(name="PSNR", unit="dB", better="higher", target=30.0)
DOWN = Measure(name="seconds", unit="s", better="lower", target=2.0, target_method="new")
UNDIRECTED = Measure(name="calls", unit="", target=1.0)


def parsed(values: dict[str, dict[str, list[float]]], *measures: Measure) -> dict[str, dict[str, object]]:
    text = json_lines(result_records(make_results(values, measures=measures)))
    return {record["metric"]: record for record in map(json.loads, text.splitlines())}


def test_a_record_contains_bench_metric_value_unit_target_and_holds() -> None:
    lines = parsed({"old": {"PSNR": [30.0, 32.0]}}, UP)
    assert lines == {
        "PSNR/old": {"bench": "fake", "metric": "PSNR/old", "value": 31, "unit": "dB", "target": 30, "holds": True}
    }


@pytest.mark.parametrize(("psnr", "met"), [(30.0, True), (30.1, True), (29.9, False)])
def test_a_target_of_a_metric_to_maximise_is_met_from_the_target_up(psnr: float, met: bool) -> None:
    assert parsed({"old": {"PSNR": [psnr]}}, UP)["PSNR/old"]["holds"] is met


@pytest.mark.parametrize(("seconds", "met"), [(2.0, True), (1.9, True), (2.1, False)])
def test_a_target_of_a_metric_to_minimise_is_met_up_to_the_target(seconds: float, met: bool) -> None:
    lines = parsed({"old": {"seconds": [9.0]}, "new": {"seconds": [seconds]}}, DOWN)
    assert lines["seconds/new"]["holds"] is met


def test_a_target_applies_to_its_method_or_to_the_baseline_only() -> None:
    both = {"PSNR": [40.0], "seconds": [1.0]}
    lines = parsed({"old": both, "new": both}, UP, DOWN)
    assert {name: line["target"] for name, line in lines.items()} == {
        "PSNR/old": 30,
        "PSNR/new": None,
        "seconds/old": None,
        "seconds/new": 2,
    }
    assert lines["PSNR/new"]["holds"] is None


def test_an_unknown_value_is_null_and_so_is_holds() -> None:
    lines = parsed({"old": {"PSNR": [math.nan, math.inf], "calls": [3.0, 3.0]}}, UP, UNDIRECTED)
    assert (lines["PSNR/old"]["value"], lines["PSNR/old"]["holds"]) == (None, None)
    assert lines["calls/old"]["holds"] is None
