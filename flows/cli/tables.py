"""Tables for the terminal: plans, and metrics of comparisons and benches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from storage.workspace import open_artifact
from tasks.planning.stages import STAGES, StageSettings, StageSpec

if TYPE_CHECKING:
    from tasks.evaluation.report.tables import Table
    from tasks.planning.plan import EditPlan

__all__ = ["plan_table", "rich_table", "stage_label"]


def rich_table(table: Table) -> RichTable:
    """Lay a table out for the terminal; texts are taken as they are."""
    made = RichTable(title=Text(table.title, style="bold"), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, heading in enumerate(table.headings):
        number = index >= table.labels
        made.add_column(Text(heading), justify="right" if number else "left", no_wrap=number)
    for row in table.rows:
        made.add_row(*(Text(cell.text, style="bold" if cell.mark else "") for cell in row))
    return made


def plan_table(plan: EditPlan) -> RichTable:
    """Lay out a plan: what each stage makes, how large, and what of it the workspace contains."""
    table = RichTable(title=Text(f"{plan.clip.name}: {plan.request.prompt}"), title_justify="left")
    for heading in ("stage", "makes", "in the workspace", "digest"):
        table.add_column(heading)
    for spec in STAGES:
        table.add_row(stage_label(spec), spec.makes(plan), _stored(plan, spec), _digest(plan, spec))
    return table


def stage_label(spec: StageSpec[StageSettings]) -> str:
    """Return a stage's name in words."""
    return spec.name.replace("_", " ")


def _stored(plan: EditPlan, spec: StageSpec[StageSettings]) -> str:
    """Return how many units of a stage the workspace contains."""
    artifacts = [(part, open_artifact(part[spec].ref)) for part in plan.parts(spec)]
    complete = [artifact.is_complete() for _, artifact in artifacts]
    if all(complete):
        return "all"
    found = zip(artifacts, complete, strict=True)
    done = sum(spec.units(part) if whole else spec.stored(artifact) for (part, artifact), whole in found)
    return f"{done} of {plan.units(spec)}" if done > 0 else "-"


def _digest(plan: EditPlan, spec: StageSpec[StageSettings]) -> str:
    """Return the beginning of a stage's digest, or how many shots have one each."""
    stages = plan.stages_of(spec)
    return stages[0].ref.digest[:8] if len(stages) == 1 else f"{len(stages)} shots"
