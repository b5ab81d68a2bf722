from __future__ import annotations

import json
import math

import pytest

from tasks.evaluation.comparison import Measure
from tasks.evaluation.report.jsonl import lines_text, result_lines
from tests._evaluation import make_results

UP = Measure(name="PSNR", unit="dB", better="higher", bar=30.0)
DOWN = Measure(name="seconds", unit="s", better="lower", bar=2.0, bar_method="new")
TOLD = Measure(name="calls", unit="", bar=1.0)


def parsed(figures: dict[str, dict[str, list[float]]], *measures: Measure) -> dict[str, dict[str, object]]:
    text = lines_text(result_lines(make_results(figures, measures=measures)))
    return {line["metric"]: line for line in map(json.loads, text.splitlines())}


def test_a_line_tells_bench_metric_value_unit_bar_and_whether_it_holds() -> None:
    lines = parsed({"old": {"PSNR": [30.0, 32.0]}}, UP)
    assert lines == {
        "PSNR/old": {"bench": "fake", "metric": "PSNR/old", "value": 31, "unit": "dB", "bar": 30, "holds": True}
    }


@pytest.mark.parametrize(("psnr", "held"), [(30.0, True), (30.1, True), (29.9, False)])
def test_a_bar_of_what_should_be_high_holds_from_the_bar_on(psnr: float, held: bool) -> None:
    assert parsed({"old": {"PSNR": [psnr]}}, UP)["PSNR/old"]["holds"] is held


@pytest.mark.parametrize(("seconds", "held"), [(2.0, True), (1.9, True), (2.1, False)])
def test_a_bar_of_what_should_be_low_holds_up_to_the_bar(seconds: float, held: bool) -> None:
    lines = parsed({"old": {"seconds": [9.0]}, "new": {"seconds": [seconds]}}, DOWN)
    assert lines["seconds/new"]["holds"] is held


def test_a_bar_is_set_for_its_method_or_the_baseline_alone() -> None:
    both = {"PSNR": [40.0], "seconds": [1.0]}
    lines = parsed({"old": both, "new": both}, UP, DOWN)
    assert {name: line["bar"] for name, line in lines.items()} == {
        "PSNR/old": 30,
        "PSNR/new": None,
        "seconds/old": None,
        "seconds/new": 2,
    }
    assert lines["PSNR/new"]["holds"] is None


def test_what_is_unknown_is_null_and_neither_holds_nor_fails() -> None:
    lines = parsed({"old": {"PSNR": [math.nan, math.inf], "calls": [3.0, 3.0]}}, UP, TOLD)
    assert (lines["PSNR/old"]["value"], lines["PSNR/old"]["holds"]) == (None, None)
    assert lines["calls/old"]["holds"] is None
