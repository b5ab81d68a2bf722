"""Plots of a comparison as SVG for the report page, readable on light and dark backgrounds."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.evaluation.comparisons.comparison import Measure, Method
from tasks.evaluation.results import Results
from tasks.evaluation.statistics import Difference

__all__ = ["difference_plot", "distribution_plot"]

_INK = "#010203"  # replaced by the page's own text colour
_COLOURS = ("#3f87c5", "#d98324", "#2f9e75", "#c65a95", "#8f74bd", "#b29a1a", "#3fb1c1", "#d4545c")
_VERDICTS = {"better": "#2f9e75", "worse": "#d4545c", "no difference shown": "#8a8a8a", None: "#3f87c5"}
_STYLE: Mapping[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], _INK),
}
_WIDTH = 6.6
_ROW = 0.24
_NAMESPACES = re.compile(r'\sxmlns(?::\w+)?="[^"]*"')


def difference_plot(results: Results, measure: Measure) -> str | None:
    """Draw each method's paired difference from the baseline with its 95 % interval; return None if all are 0.

    Filled dots are differences that are shown after Holm's correction; hollow ones may be chance.
    """
    found = [
        (method.name, results.difference(measure, method)) for method in results.methods if results.is_compared(method)
    ]
    found = [(name, difference) for name, difference in found if difference.summary.mean is not None]
    if all(difference.summary.mean == 0 and not difference.summary.sd for _, difference in found):
        return None
    with _styled(f"difference {measure.name}"):
        figure, axes = _canvas(rows=len(found))
        axes.axvline(0, color=_INK, linewidth=0.8, alpha=0.6)
        for row, (_, difference) in enumerate(found):
            _draw_difference(axes, row, difference)
        _name_rows(axes, [name for name, _ in found])
        axes.set_xlabel(f"{_quantity(measure)}: difference from {results.baseline}{_direction(measure)}")
        return _svg(figure)


def distribution_plot(results: Results, measure: Measure, methods: Sequence[Method]) -> str | None:
    """Draw every clip's value as a dot, group by group, with each method's average; return None without values.

    Args:
        results: of the comparison.
        measure: the metric.
        methods: at most as many as there are colours, 8.
    """
    methods = methods[: len(_COLOURS)]
    shown = [method for method in methods if np.isfinite(results.values(measure, method)).any()]
    if not shown:
        return None
    with _styled(f"distribution {measure.name}"):
        figure, axes = _canvas(rows=len(results.groups) * (0.45 * len(methods) + 1) + 2)
        for colour, method in zip(_COLOURS, methods, strict=False):
            if method in shown:
                _draw_distribution(axes, results, measure, method, offset=_offset(methods, method), colour=colour)
        _name_rows(axes, list(results.groups))
        axes.set_xlabel(_quantity(measure) + _direction(measure))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, borderaxespad=0.2)
        return _svg(figure)


@contextmanager
def _styled(name: str) -> Iterator[None]:
    """Set the style; ids inside an SVG are derived from the plot's name, since one page contains many plots."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        yield


def _canvas(*, rows: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, _ROW * rows + 0.8), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.grid(axis="x", color=_INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _draw_difference(axes: Axes, row: int, difference: Difference) -> None:
    found, colour = difference.summary, _VERDICTS[difference.verdict]
    mean = np.array([found.mean], float)
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [row, row], color=colour, linewidth=1.8, solid_capstyle="butt")
    is_shown = difference.verdict in {"better", "worse"}
    axes.plot(mean, [row], "o", color=colour, markersize=5, fillstyle="full" if is_shown else "none")


def _draw_distribution(
    axes: Axes, results: Results, measure: Measure, method: Method, *, offset: float, colour: str
) -> None:
    for row, group in enumerate(results.groups):
        values = results.values(measure, method, group=group)
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        label = method.name if row == _first_row(results, measure, method) else None
        axes.plot(values, np.full(len(values), row + offset), "o", color=colour, markersize=3.5, alpha=0.55, mew=0)
        middle = np.median(values) if measure.average == "median" else values.mean()
        axes.plot([middle], [row + offset], "|", color=colour, markersize=9, mew=2, label=label)


def _first_row(results: Results, measure: Measure, method: Method) -> int:
    """Return the first group in which a method has values: it adds the method to the legend."""
    known = [bool(np.isfinite(results.values(measure, method, group=group)).any()) for group in results.groups]
    return known.index(True)


def _offset(methods: Sequence[Method], method: Method) -> float:
    """Return the vertical offset of a method in its group's row."""
    return 0.8 * ((list(methods).index(method) + 0.5) / len(methods) - 0.5)


def _quantity(measure: Measure) -> str:
    return f"{measure.name} ({measure.unit})" if measure.unit else measure.name


def _direction(measure: Measure) -> str:
    return "" if measure.better is None else f"  ({measure.better} is better)"


def _svg(figure: Figure) -> str:
    """Return a figure as an <svg> element, with the text colour of the page around it."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(["Date", "Creator", "Format", "Type"])
    figure.savefig(buffer, format="svg", metadata=no_metadata)
    text = buffer.getvalue()
    element = _NAMESPACES.sub("", text[text.index("<svg") :])
    return element.replace(_INK, "currentColor")
