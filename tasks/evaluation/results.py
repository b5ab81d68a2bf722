"""The figures of a run as one long table, and as what is read from it."""

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
from tasks.evaluation.comparison import Measure, Method
from tasks.evaluation.comparisons.registry import comparison
from tasks.evaluation.plan import EvaluationPlan, PlannedClip
from tasks.evaluation.statistics import Difference, Spread, paired_difference, spread

__all__ = ["COLUMNS", "Results", "collect_results", "metrics_parquet"]

_TYPES = {bool: "boolean", int: "Int64", float: "Float64", str: "string"}
COLUMNS = ("comparison", "clip", "group", "edit", "method", "measure", "unit", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a comparison found."""

    name: str
    title: str
    baseline: str
    measures: tuple[Measure, ...]
    """All that the comparison declares, whether or not they could be taken."""
    methods: tuple[Method, ...]
    metrics: pd.DataFrame
    """One row per clip, method and measure; see COLUMNS, and a column `factor.<name>` per factor. NaN where a figure
    could not be taken."""
    seconds: float = 0.0
    """What computing the outcomes took, now and earlier."""
    _figures: dict[str, NDArray[np.float64]] = field(init=False, repr=False, compare=False, default_factory=dict)

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
    def taken(self) -> tuple[Measure, ...]:
        """The measures that could be taken at least once."""
        return tuple(measure for measure in self.measures if np.isfinite(self._of(measure)).any())

    @property
    def leading(self) -> Measure | None:
        """The first measure with a better side: what methods and clips are ranked by where a choice must be made."""
        return next((measure for measure in self.taken if measure.better is not None), None)

    def figures(self, measure: Measure, method: Method | str, *, group: str | None = None) -> NDArray[np.float64]:
        """Give a method's figures over all clips, or over those of a group, in the order of the clips."""
        name = method if isinstance(method, str) else method.name
        column = self._of(measure)[:, [item.name for item in self.methods].index(name)]
        if group is None:
            return column
        inside = set(self.groups[group])
        return column[[clip in inside for clip in self.clips]]

    def spread(self, measure: Measure, method: Method, *, group: str | None = None) -> Spread:
        """Summarise a method's figures."""
        return spread(self.figures(measure, method, group=group))

    def difference(self, measure: Measure, method: Method) -> Difference:
        """Compare a method with the baseline."""
        return paired_difference(
            self.figures(measure, method), self.figures(measure, self.baseline), better=measure.better
        )

    def _of(self, measure: Measure) -> NDArray[np.float64]:
        """Lay a measure's figures out by clip and method."""
        if measure.name not in self._figures:
            rows = self.metrics[self.metrics["measure"] == measure.name]
            table = rows.pivot(index="clip", columns="method", values="value")
            table = table.reindex(index=list(self.clips), columns=[method.name for method in self.methods])
            self._figures[measure.name] = table.to_numpy(float)
        return self._figures[measure.name]


def collect_results(plan: EvaluationPlan) -> Results:
    """Read the outcomes of a run from the workspace.

    Raises:
        WorkspaceError: if one is not there.
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
    """Write the long table as Parquet."""
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
    """Build the table; a factor whose values have several types becomes text, which a column can hold."""
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
    """Choose the type of a column that holds these and, where one is None, nothing; None where there is none."""
    kinds = {type(value) for value in values if value is not None}
    return _TYPES.get(kinds.pop()) if len(kinds) == 1 else None


def _text(value: Any) -> str:
    plain = to_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain)
