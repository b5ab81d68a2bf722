from __future__ import annotations

import json

import pytest

from tasks.evaluation.bench.measurements import (
    Measurement,
    bench_table,
    least_seconds,
    measurement_record,
    without_target,
)
from tasks.evaluation.comparisons.comparison import Measure
from tasks.evaluation.report.jsonl import json_lines

LOW = Measure(name="seconds", unit="s", better="lower", target=2.0)
HIGH = Measure(name="PSNR", unit="dB", better="higher", target=30.0)


@pytest.mark.parametrize(
    ("measure", "value", "met"),
    [
        (LOW, 1.9, True),
        (LOW, 2.0, True),
        (LOW, 2.1, False),
        (HIGH, 30.0, True),
        (HIGH, 29.9, False),
        (LOW, None, None),
        (LOW, float("nan"), None),
        (without_target(LOW), 1.0, None),
    ],
)
def test_a_record_states_the_target_and_whether_it_is_met(
    measure: Measure, value: float | None, met: bool | None
) -> None:
    record = measurement_record("speed", Measurement(measure=measure, subject="a pair", value=value))
    assert record["holds"] is met
    assert record["target"] == measure.target


def test_a_record_is_one_line_of_json_with_six_keys() -> None:
    text = json_lines([measurement_record("speed", Measurement(measure=LOW, subject="a pair", value=3.0))])
    assert text.endswith("}\n")
    assert json.loads(text) == {
        "bench": "speed",
        "metric": "seconds/a pair",
        "value": 3.0,
        "unit": "s",
        "target": 2.0,
        "holds": False,
    }


def test_the_table_shows_targets_and_highlights_missed_ones() -> None:
    values = [(LOW, 3.0), (LOW, 1.0), (HIGH, None), (without_target(LOW), 1.5)]
    measurements = [Measurement(measure=measure, subject="x", value=value) for measure, value in values]
    rows = [[cell.text for cell in row] for row in bench_table("Speed", measurements).rows]
    assert rows == [
        ["seconds", "x", "at most 2 s", "3 s", "no"],
        ["seconds", "x", "at most 2 s", "1 s", "yes"],
        ["PSNR", "x", "at least 30 dB", "–", "unknown"],  # noqa: RUF001
        ["seconds", "x", "", "1.50 s", ""],
    ]
    assert [row[-1].mark for row in bench_table("Speed", measurements).rows] == [True, False, False, False]


def test_the_minimum_of_several_runs_counts() -> None:
    ticks = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    calls: list[int] = []
    seconds, result = least_seconds(lambda: calls.append(1) or len(calls), repeats=3, clock=lambda: next(ticks))
    assert (seconds, result) == (2.0, 3)
