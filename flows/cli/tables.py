"""Tables for the terminal: plans, estimates, and metrics of comparisons and benches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.filesize import decimal
from rich.table import Table as RichTable
from rich.text import Text

from storage.workspace import open_artifact
from tasks.planning.stages import STAGES, StageSettings, StageSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.evaluation.report.tables import Table
    from tasks.planning.estimate import Estimate, Seconds, StageEstimate
    from tasks.planning.plan import EditPlan

__all__ = ["complete_stages", "estimate_table", "plan_table", "rich_table", "stage_label", "stored_results"]

_ALL = "all"
_NO_RUN = "no past run"


def rich_table(table: Table) -> RichTable:
    """Lay a table out for the terminal; texts are taken as they are."""
    made = RichTable(title=Text(table.title, style="bold"), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, heading in enumerate(table.headings):
        number = index >= table.labels
        made.add_column(Text(heading), justify="right" if number else "left", no_wrap=number)
    for row in table.rows:
        made.add_row(*(Text(cell.text, style="bold" if cell.mark else "") for cell in row))
    return made


def plan_table(plan: EditPlan, stored: Mapping[str, str]) -> RichTable:
    """Lay out a plan: what each stage makes, how large, and what of it the workspace contains.

    Args:
        plan: the plan.
        stored: from `stored_results`.
    """
    table = RichTable(title=Text(f"{plan.clip.name}: {plan.request.prompt}"), title_justify="left")
    for heading in ("stage", "makes", "in the workspace", "digest"):
        table.add_column(heading)
    for spec in STAGES:
        table.add_row(stage_label(spec), spec.makes(plan), stored[spec.name], _digest(plan, spec))
    return table


def stage_label(spec: StageSpec[StageSettings]) -> str:
    """Return a stage's name in words."""
    return _words(spec.name)


def _words(name: str) -> str:
    return name.replace("_", " ")


def stored_results(plan: EditPlan) -> dict[str, str]:
    """Return, in words, what the workspace contains of each stage, by the stage's name."""
    return {spec.name: _stored(plan, spec) for spec in STAGES}


def complete_stages(stored: Mapping[str, str]) -> set[str]:
    """Return the names of the stages that are complete."""
    return {name for name, words in stored.items() if words == _ALL}


def estimate_table(estimate: Estimate) -> RichTable:
    """Lay out what the stages of a run will take, and all of them together.

    The last column is the factor by which past results differ from their own estimates.
    """
    table = RichTable(title="Estimate, from past runs in the workspace", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("stage", "to compute", "time", "peak memory", "disk", "past results", "off by"):
        table.add_column(heading, justify="left" if heading == "stage" else "right", no_wrap=True)
    for stage in estimate.stages:
        if stage.results:
            table.add_row(*_estimate_cells(stage))
    table.add_section()
    time = _time(estimate.seconds, unknown=estimate.unknown)
    table.add_row("all, one by one", "", time, _memory(estimate.peak_memory_mib), _disk(estimate), "", "")
    gpu = _NO_RUN if estimate.unknown and not estimate.seconds.middle else f"{estimate.gpu_hours:.2f}"
    table.add_row("hours of a GPU", "", gpu, "", "", "", "")
    return table


def _estimate_cells(stage: StageEstimate) -> tuple[str, ...]:
    known = stage.results > stage.unknown
    return (
        _words(stage.stage),
        str(stage.results),
        _time(stage.seconds, unknown=stage.unknown) if known else _NO_RUN,
        _memory(stage.peak_memory_mib),
        _disk(stage),
        str(stage.past),
        "-" if stage.error_factor is None else f"x {stage.error_factor:.2f}",
    )


def _time(seconds: Seconds, *, unknown: int) -> str:
    if not seconds.middle:
        return _NO_RUN if unknown else "-"
    spread = f" ({_clock(seconds.low)} to {_clock(seconds.high)})" if seconds.low < seconds.high else ""
    return f"{_clock(seconds.middle)}{spread}{f', and {unknown} unknown' if unknown else ''}"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _memory(mib: float) -> str:
    return f"{decimal(round(mib * 2**20))}" if mib else "-"


def _disk(estimate: StageEstimate | Estimate) -> str:
    return f"{decimal(estimate.disk)}{'' if estimate.disk_known else ' uncompressed'}"


def _stored(plan: EditPlan, spec: StageSpec[StageSettings]) -> str:
    """Return how many units of a stage the workspace contains."""
    artifacts = [(part, open_artifact(part[spec].ref)) for part in plan.parts(spec)]
    complete = [artifact.is_complete() for _, artifact in artifacts]
    if all(complete):
        return _ALL
    found = zip(artifacts, complete, strict=True)
    done = sum(spec.units(part) if whole else spec.stored(artifact) for (part, artifact), whole in found)
    return f"{done} of {plan.units(spec)}" if done > 0 else "-"


def _digest(plan: EditPlan, spec: StageSpec[StageSettings]) -> str:
    """Return the beginning of a stage's digest, or how many shots have one each."""
    stages = plan.stages_of(spec)
    return stages[0].ref.digest[:8] if len(stages) == 1 else f"{len(stages)} shots"
