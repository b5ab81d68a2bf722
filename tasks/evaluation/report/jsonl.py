"""The figures for machines: one JSON object per line, the same shape for every bench."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TypedDict

from tasks.evaluation.comparison import Measure, Method
from tasks.evaluation.results import Results

__all__ = ["Line", "bar_of", "figure_line", "holds", "lines_text", "result_lines"]


class Line(TypedDict):
    """One figure."""

    bench: str
    metric: str
    """The measure and the method, joined by a slash."""
    value: float | None
    """The mean over the clips."""
    unit: str
    bar: float | None
    holds: bool | None


def result_lines(results: Results) -> list[Line]:
    """Tell the mean of every measure for every method, and whether it holds the bar that is set for it."""
    return [_line(results, measure, method) for measure in results.measures for method in results.methods]


def lines_text(lines: Sequence[Line]) -> str:
    """Write lines as JSON, each with a line break at its end."""
    return "".join(json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n" for line in lines)


def bar_of(results: Results, measure: Measure, method: Method) -> float | None:
    """Give the bar that a method is held to: the baseline, if the measure names no other."""
    return measure.bar if method.name == (measure.bar_method or results.baseline) else None


def holds(measure: Measure, value: float | None, bar: float | None) -> bool | None:
    """Tell whether a figure reaches a bar; None where one of them is not known."""
    if value is None or bar is None or measure.better is None:
        return None
    return value >= bar if measure.better == "higher" else value <= bar


def figure_line(bench: str, measure: Measure, method: str, *, value: float | None, bar: float | None) -> Line:
    """Tell one figure; what is not finite is not known."""
    if value is not None and not math.isfinite(value):
        value = None
    return Line(
        bench=bench,
        metric=f"{measure.name}/{method}",
        value=value,
        unit=measure.unit,
        bar=bar,
        holds=holds(measure, value, bar),
    )


def _line(results: Results, measure: Measure, method: Method) -> Line:
    value, bar = results.spread(measure, method).mean, bar_of(results, measure, method)
    return figure_line(results.name, measure, method.name, value=value, bar=bar)
