"""The metrics of a run as one long table, with the summaries and differences that tables and plots need."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.digest import to_json
from storage.workspace import Workspace
from tasks.evaluation.comparisons.comparison import Measure, Method
from tasks.evaluation.comparisons.registry import comparison
from tasks.evaluation.plan import EvaluationPlan, PlannedClip
from tasks.evaluation.statistics import Difference, Summary, corrected, paired_difference, summarise

__all__ = ["COLUMNS", "Results", "collect_results", "metrics_parquet"]

_TYPES = {bool: "boolean", int: "Int64", float: "Float64", str: "string"}
COLUMNS = ("comparison", "clip", "group", "edit", "method", "measure", "unit", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of a comparison."""

    name: str
    title: str
    baseline: str
    measures: tuple[Measure, ...]
    """All metrics that the comparison declares, whether or not they could be measured."""
    methods: tuple[Method, ...]
    metrics: pd.DataFrame
    """One row per clip, method and metric; see COLUMNS, and a column `factor.<name>` per factor. NaN for a metric that
    could not be measured."""
    seconds: float = 0.0
    """Seconds that computing the outcomes took, in this run and earlier ones."""
    _differences: dict[tuple[str, str], Difference] = field(init=False, repr=False, compare=False, default_factory=dict)
    """By the names of the metric and the method; those of all are needed for the verdict of one."""
    _tables: dict[str, NDArray[np.float64]] = field(init=False, repr=False, compare=False, default_factory=dict)

    @property
    def clips(self) -> tuple[str, ...]:
        """Names of the clips."""
        return tuple(dict.fromkeys(self.metrics["clip"]))

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The clips of each group."""
        pairs = dict.fromkeys(zip(self.metrics["group"], self.metrics["clip"], strict=True))
        return {group: tuple(clip for of, clip in pairs if of == group) for group, _ in pairs}

    @property
    def measured(self) -> tuple[Measure, ...]:
        """The metrics that could be measured on at least one clip."""
        return tuple(measure for measure in self.measures if np.isfinite(self._of(measure)).any())

    @property
    def leading(self) -> Measure | None:
        """The first metric with a direction: methods and clips are ranked by it."""
        return next((measure for measure in self.measured if measure.better is not None), None)

    def values(self, measure: Measure, method: Method | str, *, group: str | None = None) -> NDArray[np.float64]:
        """Return a method's values, one per clip of all clips or of a group; NaN if a value could not be measured."""
        name = method if isinstance(method, str) else method.name
        column = self._of(measure)[:, [item.name for item in self.methods].index(name)]
        if group is None:
            return column
        inside = set(self.groups[group])
        return column[[clip in inside for clip in self.clips]]

    def summary(self, measure: Measure, method: Method, *, group: str | None = None) -> Summary:
        """Summarise a method's values of a metric."""
        return summarise(self.values(measure, method, group=group), average=measure.average)

    def baseline_of(self, method: Method) -> str:
        """Return the name of the method that another one is compared with."""
        return method.baseline or self.baseline

    def is_compared(self, method: Method) -> bool:
        """Return whether a method is compared with another one: no baseline is, and no reference row."""
        return not method.reference and self.baseline_of(method) != method.name

    def difference(self, measure: Measure, method: Method) -> Difference:
        """Compare a method with its baseline, clip by clip; the verdict is corrected for all comparisons of the run."""
        if not self._differences:
            pairs = [(item, each) for item in self.measured for each in self.methods if self.is_compared(each)]
            found = corrected([self._difference(*pair) for pair in pairs])
            self._differences.update(
                {(item.name, each.name): value for (item, each), value in zip(pairs, found, strict=True)}
            )
        known = self._differences.get((measure.name, method.name))
        return self._difference(measure, method) if known is None else known

    def _difference(self, measure: Measure, method: Method) -> Difference:
        values, baseline = (self.values(measure, name) for name in (method.name, self.baseline_of(method)))
        return paired_difference(values, baseline, better=measure.better, average=measure.average)

    def _of(self, measure: Measure) -> NDArray[np.float64]:
        """Return the values of a metric, (clip, method)."""
        if measure.name not in self._tables:
            rows = self.metrics[self.metrics["measure"] == measure.name]
            table = rows.pivot(index="clip", columns="method", values="value")
            table = table.reindex(index=list(self.clips), columns=[method.name for method in self.methods])
            self._tables[measure.name] = table.to_numpy(float)
        return self._tables[measure.name]


def collect_results(plan: EvaluationPlan) -> Results:
    """Read the outcomes of a run from the workspace.

    Raises:
        WorkspaceError: if one is missing.
    """
    found, workspace = comparison(plan.name), Workspace.open(plan.workspace)
    records, seconds = [], 0.0
    for clip in plan.clips:
        for method in plan.methods:
            outcome = workspace.artifact(plan.ref(clip, method)).metadata
            seconds += outcome["seconds"]
            records += list(_rows(clip, method, outcome["scores"], measures=found.measures, name=plan.name))
    return Results(
        name=plan.name,
        title=found.title,
        baseline=found.baseline,
        measures=tuple(found.measures),
        methods=plan.methods,
        metrics=_table(records, plan.methods),
        seconds=seconds,
    )


def metrics_parquet(results: Results) -> bytes:
    """Encode the long table as Parquet."""
    buffer = io.BytesIO()
    results.metrics.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _rows(
    clip: PlannedClip,
    method: Method,
    scores: dict[str, float | None],
    *,
    measures: tuple[Measure, ...],
    name: str,
) -> Iterator[dict[str, Any]]:
    factors = {f"factor.{key}": value for key, value in method.factors.items()}
    for measure in measures:
        yield {
            "comparison": name,
            "clip": clip.name,
            "group": clip.group,
            "edit": clip.edit,
            "method": method.name,
            **factors,
            "measure": measure.name,
            "unit": measure.unit,
            "value": scores.get(measure.name),
        }


def _table(records: list[dict[str, Any]], methods: tuple[Method, ...]) -> pd.DataFrame:
    """Build the table; a factor with values of several types becomes a text column."""
    columns = {name: [record[name] for record in records] for name in records[0]}
    table = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    factors = {f"factor.{key}": _type_of([method.factors[key] for method in methods]) for key in methods[0].factors}
    for name in (name for name, kind in factors.items() if kind is None):
        table[name] = [None if value is None else _text(value) for value in columns[name]]
    return table.astype(
        {
            **dict.fromkeys(table.columns, "string"),
            **{name: kind or "string" for name, kind in factors.items()},
            "value": float,
        }
    )


def _type_of(values: list[Any]) -> str | None:
    """Choose the nullable pandas type of a factor's values; None if they have several types."""
    kinds = {type(value) for value in values if value is not None}
    return _TYPES.get(kinds.pop()) if len(kinds) == 1 else None


def _text(value: Any) -> str:
    plain = to_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain)
