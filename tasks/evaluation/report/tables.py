"""The figures for people, as tables that can be printed, written as Markdown, or shown in a page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.evaluation.comparison import Measure, Method
from tasks.evaluation.report.jsonl import bar_of, holds
from tasks.evaluation.results import Results
from tasks.evaluation.statistics import Difference, Spread

__all__ = [
    "Cell",
    "Table",
    "bars_table",
    "differences_table",
    "figure_row",
    "group_tables",
    "markdown",
    "means_table",
    "measure_table",
]

UNKNOWN = "–"  # noqa: RUF001  (a dash, as tables have it)
_PAIRED = (
    "Mean of the paired differences and its 95 % confidence interval (Student's t over the clips that both have a "
    "figure of). Better or worse is said where the interval leaves zero out; else no difference is shown. The "
    "intervals are not widened for the number of methods."
)
_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


@dataclass(frozen=True, slots=True)
class Cell:
    """A text in a table."""

    text: str
    mark: bool = False
    """Whether it stands out: the best of its column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells under headings; the first `labels` columns are words, the rest figures."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int = 1
    note: str = ""
    """How to read it."""


def means_table(results: Results) -> Table:
    """Tabulate mean and standard deviation over all clips, a row per method and a column per measure."""
    table = _spreads_table(results, title="Mean ± standard deviation over the clips", group=None)
    return replace(table, note="The best of a column is marked; an arrow tells which way is better.")


def group_tables(results: Results) -> tuple[Table, ...]:
    """Tabulate the same for each group of clips; nothing where there is but one."""
    groups = results.groups
    if len(groups) < 2:
        return ()
    return tuple(
        _spreads_table(results, title=f"{group} ({len(clips)} clip{'s' if len(clips) > 1 else ''})", group=group)
        for group, clips in groups.items()
    )


def differences_table(results: Results) -> Table:
    """Tabulate each method less the baseline, paired by clip, with 95 % confidence intervals and what they show.

    To be not too wide, it says "no difference shown" by saying nothing.
    """
    methods = [method for method in results.methods if method.name != results.baseline]
    columns = []
    for measure in results.taken:
        found = [results.difference(measure, method) for method in methods]
        places = decimals(end for item in found for end in _ends(item))
        columns.append([_difference_cell(item, places, len(results.clips)) for item in found])
    headings = [_heading(measure) for measure in results.taken]
    title = f"Difference from {results.baseline}, clip by clip"
    return replace(_methods_table(title, results, methods, (headings, columns)), note=_PAIRED)


def measure_table(results: Results, measure: Measure) -> Table:
    """Tabulate one measure, narrow enough for a terminal: mean, spread and paired difference of every method."""
    found = [results.spread(measure, method) for method in results.methods]
    apart = [results.difference(measure, method) for method in results.methods]
    clips, places = len(results.clips), decimals(end for item in apart for end in _ends(item))
    means = _spread_cells(measure, found, clips)
    rows = [
        (Cell(method.name), mean, *_words_of(difference, places, clips))
        if method.name != results.baseline
        else (Cell(method.name), mean, Cell(""), Cell("the baseline"))
        for method, mean, difference in zip(results.methods, means, apart, strict=True)
    ]
    headings = ("method", "mean ± sd", "difference [95 %]", "")
    return Table(title=_heading(measure), headings=headings, rows=tuple(rows))


def bars_table(results: Results) -> Table | None:
    """Tabulate what was asked for and what was found; None where no bar is set."""
    rows = []
    for measure in results.measures:
        for method in results.methods:
            bar = bar_of(results, measure, method)
            if bar is not None:
                rows.append(figure_row(measure, method.name, value=results.spread(measure, method).mean, bar=bar))
    if not rows:
        return None
    return Table(
        title="What is asked for", headings=("measure", "method", "asked", "found", "holds"), rows=tuple(rows), labels=2
    )


def _plain(value: float) -> str:
    """Write a figure out, unless it is so small that its zeros would fill the row."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-4 else f"{value:.{decimals([value])}f}"


def figure_row(measure: Measure, method: str, *, value: float | None, bar: float | None) -> tuple[Cell, ...]:
    """Put one figure beside what is asked: measure, method, asked, found, holds; a bar that is missed stands out."""
    held = holds(measure, value, bar)
    sign = "at least" if measure.better == "higher" else "at most"
    found = UNKNOWN if value is None else f"{_plain(value)} {measure.unit}".strip()
    words = {True: "yes", False: "no", None: "" if bar is None else "not known"}
    return (
        Cell(measure.name),
        Cell(method),
        Cell("" if bar is None else f"{sign} {bar:g} {measure.unit}".strip()),
        Cell(found),
        Cell(words[held], mark=held is False),
    )


def markdown(table: Table) -> str:
    """Write a table in Markdown; what stands out is bold."""
    lines = [[_escaped(heading) for heading in table.headings]]
    lines += [[":--"] * table.labels + ["--:"] * (len(table.headings) - table.labels)]
    lines += [
        [f"**{_escaped(cell.text)}**" if cell.mark else _escaped(cell.text) for cell in row] for row in table.rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def decimals(values: Iterable[float | None]) -> int:
    """Choose how many decimals the figures of a column get: three or four digits of the largest, none if all are whole.

    Infinite and missing figures do not count.
    """
    known = [abs(value) for value in values if value is not None and math.isfinite(value)]
    if all(value == round(value) for value in known):
        return 0
    magnitude = math.floor(math.log10(max(known)))
    return min(8, max(0, 3 - magnitude if magnitude > 0 else 2 - magnitude))


def _spreads_table(results: Results, *, title: str, group: str | None) -> Table:
    clips = len(results.clips if group is None else results.groups[group])
    headings, columns = [], []
    for measure in results.taken:
        found = [results.spread(measure, method, group=group) for method in results.methods]
        n = max(item.n for item in found)
        headings.append(_heading(measure) + (f", n = {n}" if n != clips else ""))
        columns.append(_spread_cells(measure, found, n))
    return _methods_table(title, results, results.methods, (headings, columns))


def _spread_cells(measure: Measure, found: Sequence[Spread], n: int) -> list[Cell]:
    places = decimals(value for item in found for value in (item.mean, item.sd))
    means = [None if item.mean is None else f"{item.mean:.{places}f}" for item in found]
    known = [float(mean) for mean in means if mean is not None]
    pick: Callable[[list[float]], float] = max if measure.better == "higher" else min
    # As printed: a mark must not tell apart what the reader sees as equal
    best = pick(known) if measure.better and len(set(known)) > 1 else None
    return [
        Cell(_spread_text(item, places, n), mark=mean is not None and best is not None and float(mean) == best)
        for item, mean in zip(found, means, strict=True)
    ]


def _spread_text(found: Spread, places: int, n: int) -> str:
    if found.mean is None:
        return UNKNOWN
    text = f"{found.mean:.{places}f}" + ("" if found.sd is None else f" ± {found.sd:.{places}f}")
    return text + (f" (n = {found.n})" if found.n != n else "")


def _difference_cell(found: Difference, places: int, clips: int) -> Cell:
    difference, verdict = _words_of(found, places, clips)
    return Cell(f"{difference.text} {verdict.text}") if found.verdict in {"better", "worse"} else difference


def _words_of(found: Difference, places: int, clips: int) -> tuple[Cell, Cell]:
    """Put a difference and what it shows in words."""
    mean, low, high = found.spread.mean, found.spread.low, found.spread.high
    if mean is None:
        return Cell(UNKNOWN), Cell("")
    interval = f" [{low:+z.{places}f}, {high:+z.{places}f}]" if low is not None and high is not None else ""
    count = f" (n = {found.spread.n})" if found.spread.n != clips else ""
    return Cell(f"{mean:+z.{places}f}{interval}{count}"), Cell(found.verdict or "")


def _ends(found: Difference) -> tuple[float | None, float | None, float | None]:
    return found.spread.mean, found.spread.low, found.spread.high


def _methods_table(
    title: str, results: Results, methods: Sequence[Method], figures: tuple[list[str], list[list[Cell]]]
) -> Table:
    """Put the methods, and those of their factors that differ, before columns of figures."""
    headings, columns = figures
    factors = _telling_factors(results.methods)
    labels = [[Cell(method.name), *(Cell(_word(method.factors[key])) for key in factors)] for method in methods]
    rows = [tuple(label) + tuple(column[i] for column in columns) for i, label in enumerate(labels)]
    return Table(
        title=title,
        headings=("method", *(key.replace("_", " ") for key in factors), *headings),
        rows=tuple(rows),
        labels=1 + len(factors),
    )


def _telling_factors(methods: Sequence[Method]) -> list[str]:
    """Choose the factors that differ between methods and do not just repeat their names."""
    return [
        key
        for key in methods[0].factors
        if len({json.dumps(method.factors[key]) for method in methods}) > 1
        and any(_word(method.factors[key]) != method.name for method in methods)
    ]


def _heading(measure: Measure) -> str:
    unit = f" ({measure.unit})" if measure.unit else ""
    return f"{measure.name}{unit}{_ARROWS[measure.better]}"


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return UNKNOWN if value is None else value if isinstance(value, str) else json.dumps(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;").replace("\n", " ")
