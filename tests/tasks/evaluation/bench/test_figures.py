from __future__ import annotations

import json

import pytest

from tasks.evaluation.bench.figures import Figure, bench_line, bench_table, least_seconds, told
from tasks.evaluation.comparison import Measure
from tasks.evaluation.report.jsonl import lines_text

LOW = Measure(name="seconds", unit="s", better="lower", bar=2.0)
HIGH = Measure(name="PSNR", unit="dB", better="higher", bar=30.0)


@pytest.mark.parametrize(
    ("measure", "value", "held"),
    [
        (LOW, 1.9, True),
        (LOW, 2.0, True),
        (LOW, 2.1, False),
        (HIGH, 30.0, True),
        (HIGH, 29.9, False),
        (LOW, None, None),
        (LOW, float("nan"), None),
        (told(LOW), 1.0, None),
    ],
)
def test_a_line_tells_whether_the_bar_holds(measure: Measure, value: float | None, held: bool | None) -> None:
    line = bench_line("speed", Figure(measure=measure, subject="a pair", value=value))
    assert line["holds"] is held
    assert line["bar"] == measure.bar


def test_a_line_is_one_json_object_of_six_keys() -> None:
    text = lines_text([bench_line("speed", Figure(measure=LOW, subject="a pair", value=3.0))])
    assert text.endswith("}\n")
    assert json.loads(text) == {
        "bench": "speed",
        "metric": "seconds/a pair",
        "value": 3.0,
        "unit": "s",
        "bar": 2.0,
        "holds": False,
    }


def test_the_table_says_what_is_asked_and_marks_what_is_missed() -> None:
    values = [(LOW, 3.0), (LOW, 1.0), (HIGH, None), (told(LOW), 1.5)]
    figures = [Figure(measure=measure, subject="x", value=value) for measure, value in values]
    rows = [[cell.text for cell in row] for row in bench_table("Speed", figures).rows]
    assert rows == [
        ["seconds", "x", "at most 2 s", "3 s", "no"],
        ["seconds", "x", "at most 2 s", "1 s", "yes"],
        ["PSNR", "x", "at least 30 dB", "–", "not known"],  # noqa: RUF001
        ["seconds", "x", "", "1.50 s", ""],
    ]
    assert [row[-1].mark for row in bench_table("Speed", figures).rows] == [True, False, False, False]


def test_the_least_of_several_times_counts() -> None:
    ticks = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    calls: list[int] = []
    seconds, made = least_seconds(lambda: calls.append(1) or len(calls), repeats=3, clock=lambda: next(ticks))
    assert (seconds, made) == (2.0, 3)
