"""What the `wave` command draws: a bar per stage, and plans as tables."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from storage.artifact import Artifact
from storage.workspace import open_artifact
from tasks.planning.plan import EditPlan, Stage
from tasks.progress import listening

__all__ = ["plan_table", "stage_bars"]


@contextmanager
def stage_bars(plan: EditPlan, *, console: Console) -> Iterator[None]:
    """Draw one bar per stage while the stages run in this process."""
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, listening(_Bars(plan, progress)):
        yield


class _Bars:
    """The listener: sums up the parts of each stage, and starts a bar's clock when its stage begins."""

    def __init__(self, plan: EditPlan, progress: Progress) -> None:
        self._progress, self._lock = progress, threading.Lock()
        self._parts: dict[str, dict[str, tuple[int, int]]] = {}
        self._totals = _units(plan)
        self._bars = {stage.name: self._add(stage) for stage in plan.stages}

    def _add(self, stage: Stage) -> TaskID:
        total = self._totals[stage.name]
        done = total if open_artifact(stage.ref).is_complete() else 0
        return self._progress.add_task(_words(stage.name), start=False, total=total, completed=done)

    def __call__(self, stage: str, part: str, done: int, total: int) -> None:
        with self._lock:
            parts = self._parts.setdefault(stage, {})
            if not parts:
                self._progress.start_task(self._bars[stage])
            parts[part] = (done, total)
            known = max(self._totals[stage], sum(total for _, total in parts.values()))
            finished = sum(done for done, _ in parts.values())
            self._progress.update(self._bars[stage], completed=finished, total=known)
            if finished >= known:
                self._progress.stop_task(self._bars[stage])


def plan_table(plan: EditPlan) -> Table:
    """Lay out a plan: what each stage makes, how large, and what of it the workspace holds."""
    source, size = _by(plan.clip.size), _by(plan.size)
    flow_size, steps = _by(plan.frame_flow.settings["size"]), plan.inputs.request.steps
    frames, keyframes, units = plan.clip.frame_count, len(plan.keyframes), _units(plan)
    guided = ", guided by the source" if plan.encode.settings.get("full_resolution") else ""
    makes = {
        "decode": f"{frames} frames, {source}",
        "keyframe_flow": f"{len(plan.pairs)} pairs of keyframes, {flow_size}",
        "frame_flow": f"{units['frame_flow']} pairs of frames, {flow_size}",
        "invert": f"{keyframes} keyframes, {size}, {steps} steps",
        "edit": f"{keyframes} keyframes, {size}, {steps} steps",
        "propagate": f"{frames} frames, {size}, {len(plan.intervals)} intervals",
        "encode": f"{frames} frames, {source}{guided}",
        "assess": "report, contact sheet, both clips side by side",
    }
    table = Table(
        title=f"{plan.clip.name}: {plan.inputs.request.prompt}",
        title_justify="left",
    )
    for heading in ("stage", "makes", "in the workspace", "digest"):
        table.add_column(heading)
    for stage in plan.stages:
        table.add_row(_words(stage.name), makes[stage.name], _present(stage, units), stage.ref.digest[:8])
    return table


def _units(plan: EditPlan) -> Mapping[str, int]:
    """Count what each stage's progress counts."""
    frames, steps = plan.clip.frame_count, plan.inputs.request.steps
    return {
        "decode": frames,
        "keyframe_flow": len(plan.pairs),
        "frame_flow": frames - 1,
        "invert": steps,
        "edit": steps,
        "propagate": sum(last - first + 1 for first, last in plan.intervals),
        "encode": frames,
        "assess": frames,
    }


def _present(stage: Stage, units: Mapping[str, int]) -> str:
    artifact = open_artifact(stage.ref)
    if artifact.is_complete():
        return "all"
    done = _stored(stage.name, artifact)
    return f"{done} of {units[stage.name]}" if done > 0 else "-"


def _stored(name: str, artifact: Artifact) -> int:
    """Count the units that a stage begun and not ended has left."""
    match name:
        case "invert" | "edit":
            return artifact.readable_prefix("latents") - 1
        case "keyframe_flow" | "frame_flow":
            return artifact.readable_prefix("to_prev")
        case "propagate":
            spans = (part.split("-") for part in artifact.completed_parts())
            return sum(int(last) - int(first) + 1 for first, last in spans)
    return 0


def _words(name: str) -> str:
    return name.replace("_", " ")


def _by(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width}x{height}"
