"""Tables of the results, for the terminal, Markdown and the report page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.evaluation.comparisons.comparison import Measure, Method
from tasks.evaluation.report.jsonl import meets_target, target_of
from tasks.evaluation.results import Results
from tasks.evaluation.statistics import Difference, Summary

__all__ = [
    "Cell",
    "Table",
    "differences_table",
    "group_tables",
    "markdown",
    "means_table",
    "measure_table",
    "metric_row",
    "targets_table",
    "with_unit",
]

UNKNOWN = "–"  # noqa: RUF001  (an en dash, as is usual in tables)
_PAIRED = (
    "Mean of the paired differences and its 95 % confidence interval (Student's t over the clips with values of both "
    "methods), or their median and its interval for metrics that are averaged by the median. A difference is marked "
    "better or worse if it is shown after Holm's correction for all comparisons of this table; the intervals "
    "themselves are not widened, so some exclude zero without a mark."
)
_MEANS = (
    "The best of a column is highlighted; an arrow shows which direction is better. The last rows are no methods: they "
    "show what doing nothing, a mix and a perfect edit score."
)
_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


@dataclass(frozen=True, slots=True)
class Cell:
    """A text in a table."""

    text: str
    mark: bool = False
    """Whether it is highlighted, such as the best of its column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells under headings; the first `labels` columns are text, the rest numbers."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int = 1
    note: str = ""
    """How to read the table."""


def means_table(results: Results) -> Table:
    """Tabulate mean and standard deviation over all clips, a row per method and a column per metric."""
    table = _summaries_table(results, title="Mean ± standard deviation over the clips", group=None)
    has_references = any(method.reference for method in results.methods)
    return replace(table, note=_MEANS if has_references else _MEANS.partition(" The last")[0])


def group_tables(results: Results) -> tuple[Table, ...]:
    """Tabulate the same for each group of clips; return no tables if there is only one group."""
    groups = results.groups
    if len(groups) < 2:
        return ()
    return tuple(
        _summaries_table(results, title=f"{group} ({len(clips)} clip{'s' if len(clips) > 1 else ''})", group=group)
        for group, clips in groups.items()
    )


def differences_table(results: Results) -> Table:
    """Tabulate each method minus the baseline, paired by clip, with 95 % confidence intervals and verdicts.

    The verdict "no difference shown" is left out, to keep the table narrow.
    """
    methods = [method for method in results.methods if results.is_compared(method)]
    columns = []
    for measure in results.measured:
        found = [results.difference(measure, method) for method in methods]
        places = decimals(end for item in found for end in _ends(item))
        columns.append([_difference_cell(item, places, len(results.clips)) for item in found])
    headings = [_heading(measure) for measure in results.measured]
    baselines = dict.fromkeys(results.baseline_of(method) for method in methods)
    title = f"Difference from {' or '.join(baselines) or results.baseline}, clip by clip"
    return replace(_methods_table(title, results, methods, (headings, columns)), note=_PAIRED)


def measure_table(results: Results, measure: Measure) -> Table:
    """Tabulate one metric, narrow enough for a terminal: mean, deviation and paired difference of every method."""
    found = [results.summary(measure, method) for method in results.methods]
    compared = {
        method.name: results.difference(measure, method) for method in results.methods if results.is_compared(method)
    }
    clips, places = len(results.clips), decimals(end for item in compared.values() for end in _ends(item))
    means = _summary_cells(measure, results.methods, found, clips)
    rows = []
    for method, mean in zip(results.methods, means, strict=True):
        known = compared.get(method.name)
        rest = (Cell(""), Cell("" if method.reference else "the baseline"))
        rows.append((Cell(method.name), mean, *(rest if known is None else _difference_cells(known, places, clips))))
    headings = ("method", "median" if measure.average == "median" else "mean ± sd", "difference [95 %]", "")
    return Table(title=_heading(measure), headings=headings, rows=tuple(rows))


def targets_table(results: Results) -> Table | None:
    """Tabulate the targets and the values; return None if there are no targets."""
    rows = []
    for measure in results.measures:
        for method in results.methods:
            target = target_of(results, measure, method)
            if target is not None:
                mean = results.summary(measure, method).mean
                rows.append(metric_row(measure, method.name, value=mean, target=target))
    if not rows:
        return None
    return Table(title="Targets", headings=("metric", "method", "target", "value", "met"), rows=tuple(rows), labels=2)


def _plain(value: float) -> str:
    """Format a value with decimals, or in scientific notation if it is very small."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-4 else f"{value:.{decimals([value])}f}"


def metric_row(measure: Measure, method: str, *, value: float | None, target: float | None) -> tuple[Cell, ...]:
    """Return the row metric, method, target, value, met; a missed target is highlighted."""
    met = meets_target(measure, value, target)
    sign = "at least" if measure.better == "higher" else "at most"
    shown = UNKNOWN if value is None else with_unit(_plain(value), measure)
    words = {True: "yes", False: "no", None: "" if target is None else "unknown"}
    return (
        Cell(measure.name),
        Cell(method),
        Cell("" if target is None else with_unit(f"{sign} {target:g}", measure)),
        Cell(shown),
        Cell(words[met], mark=met is False),
    )


def with_unit(text: str, measure: Measure) -> str:
    """Append the unit of a metric to a formatted value; a fraction has none."""
    return text if measure.unit in {"", "fraction"} else f"{text} {measure.unit}"


def markdown(table: Table) -> str:
    """Format a table as Markdown; highlighted cells are bold."""
    lines = [[_escaped(heading) for heading in table.headings]]
    lines += [[":--"] * table.labels + ["--:"] * (len(table.headings) - table.labels)]
    lines += [
        [f"**{_escaped(cell.text)}**" if cell.mark else _escaped(cell.text) for cell in row] for row in table.rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def decimals(values: Iterable[float | None]) -> int:
    """Choose the decimals of a column: three or four digits of the largest value, none if all are integers.

    Infinite and missing values do not count.
    """
    known = [abs(value) for value in values if value is not None and math.isfinite(value)]
    if all(value == round(value) for value in known):
        return 0
    magnitude = math.floor(math.log10(max(known)))
    return min(8, max(0, 3 - magnitude if magnitude > 0 else 2 - magnitude))


def _summaries_table(results: Results, *, title: str, group: str | None) -> Table:
    clips = len(results.clips if group is None else results.groups[group])
    headings, columns = [], []
    for measure in results.measured:
        found = [results.summary(measure, method, group=group) for method in results.methods]
        n = max(item.n for item in found)
        headings.append(_heading(measure) + (f", n = {n}" if n != clips else ""))
        columns.append(_summary_cells(measure, results.methods, found, n))
    return _methods_table(title, results, results.methods, (headings, columns))


def _summary_cells(measure: Measure, methods: Sequence[Method], found: Sequence[Summary], n: int) -> list[Cell]:
    places = decimals(value for item in found for value in (item.mean, item.sd))
    means = [None if item.mean is None else f"{item.mean:.{places}f}" for item in found]
    competing = [mean is not None and not method.reference for mean, method in zip(means, methods, strict=True)]
    known = [float(mean) for mean, competes in zip(means, competing, strict=True) if mean is not None and competes]
    pick: Callable[[list[float]], float] = max if measure.better == "higher" else min
    # Compared as printed: of two equal texts both or neither are highlighted
    best = pick(known) if measure.better and len(set(known)) > 1 else None
    return [
        Cell(_summary_text(item, places, n), mark=competes and best is not None and float(mean or 0) == best)
        for item, mean, competes in zip(found, means, competing, strict=True)
    ]


def _summary_text(found: Summary, places: int, n: int) -> str:
    if found.mean is None:
        return UNKNOWN
    text = f"{found.mean:.{places}f}" + ("" if found.sd is None else f" ± {found.sd:.{places}f}")
    return text + (f" (n = {found.n})" if found.n != n else "")


def _difference_cell(found: Difference, places: int, clips: int) -> Cell:
    difference, verdict = _difference_cells(found, places, clips)
    return Cell(f"{difference.text} {verdict.text}") if found.verdict in {"better", "worse"} else difference


def _difference_cells(found: Difference, places: int, clips: int) -> tuple[Cell, Cell]:
    """Format a difference with its interval, and its verdict."""
    mean, low, high = found.summary.mean, found.summary.low, found.summary.high
    if mean is None:
        return Cell(UNKNOWN), Cell("")
    interval = f" [{low:+z.{places}f}, {high:+z.{places}f}]" if low is not None and high is not None else ""
    count = f" (n = {found.summary.n})" if found.summary.n != clips else ""
    return Cell(f"{mean:+z.{places}f}{interval}{count}"), Cell(found.verdict or "")


def _ends(found: Difference) -> tuple[float | None, float | None, float | None]:
    return found.summary.mean, found.summary.low, found.summary.high


def _methods_table(
    title: str, results: Results, methods: Sequence[Method], values: tuple[list[str], list[list[Cell]]]
) -> Table:
    """Put the methods, and those of their factors that differ, before columns of values."""
    headings, columns = values
    factors = _distinguishing_factors(results.methods)
    labels = [[Cell(method.name), *(Cell(_word(method.factors[key])) for key in factors)] for method in methods]
    rows = [tuple(label) + tuple(column[i] for column in columns) for i, label in enumerate(labels)]
    return Table(
        title=title,
        headings=("method", *(key.replace("_", " ") for key in factors), *headings),
        rows=tuple(rows),
        labels=1 + len(factors),
    )


def _distinguishing_factors(methods: Sequence[Method]) -> list[str]:
    """Choose the factors that differ between methods and do not only repeat their names."""
    compared = [method for method in methods if not method.reference]
    return [
        key
        for key in methods[0].factors
        if len({json.dumps(method.factors[key]) for method in compared}) > 1
        and any(_word(method.factors[key]) != method.name for method in compared)
    ]


def _heading(measure: Measure) -> str:
    words = [word for word in (measure.unit, "median" if measure.average == "median" else "") if word]
    unit = f" ({', '.join(words)})" if words else ""
    return f"{measure.name}{unit}{_ARROWS[measure.better]}"


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_word(part)}" for name, part in value.items())
    return UNKNOWN if value is None else value if isinstance(value, str) else json.dumps(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;").replace("\n", " ")
