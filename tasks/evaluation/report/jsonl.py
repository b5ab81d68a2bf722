"""The metrics for other programs: one JSON object per line, with the same keys for every comparison and bench."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TypedDict

from tasks.evaluation.comparisons.comparison import Measure, Method
from tasks.evaluation.results import Results

__all__ = ["Record", "json_lines", "meets_target", "metric_record", "result_records", "target_of"]


class Record(TypedDict):
    """One metric of one method."""

    bench: str
    """Name of the comparison or bench."""
    metric: str
    """The names of the metric and the method, joined by a slash."""
    value: float | None
    """The mean over the clips; None if it is unknown."""
    unit: str
    target: float | None
    holds: bool | None
    """Whether the target is met; None without a target or a value."""


def result_records(results: Results) -> list[Record]:
    """Return the mean of every metric for every method, and whether it meets its target."""
    return [_record(results, measure, method) for measure in results.measures for method in results.methods]


def json_lines(records: Sequence[Record]) -> str:
    """Encode records as JSON, one per line."""
    return "".join(json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n" for record in records)


def target_of(results: Results, measure: Measure, method: Method) -> float | None:
    """Return the target of a method; by default only the baseline has one."""
    return measure.target if method.name == (measure.target_method or results.baseline) else None


def meets_target(measure: Measure, value: float | None, target: float | None) -> bool | None:
    """Return whether a value meets a target; None if one of them is missing."""
    if value is None or target is None or measure.better is None:
        return None
    return value >= target if measure.better == "higher" else value <= target


def metric_record(bench: str, measure: Measure, method: str, *, value: float | None, target: float | None) -> Record:
    """Build the record of one metric; a value that is not finite becomes None."""
    if value is not None and not math.isfinite(value):
        value = None
    return Record(
        bench=bench,
        metric=f"{measure.name}/{method}",
        value=value,
        unit=measure.unit,
        target=target,
        holds=meets_target(measure, value, target),
    )


def _record(results: Results, measure: Measure, method: Method) -> Record:
    value, target = results.summary(measure, method).mean, target_of(results, measure, method)
    return metric_record(results.name, measure, method.name, value=value, target=target)
