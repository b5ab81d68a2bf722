"""Progress bars of the stages of an edit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flows.cli.tables import stage_label
from tasks.planning.plan import EditPlan
from tasks.planning.prepare import is_complete
from tasks.planning.stages import STAGES, StageSettings, StageSpec
from tasks.progress import listening

__all__ = ["stage_bars"]


@contextmanager
def stage_bars(plan: EditPlan, *, console: Console) -> Iterator[None]:
    """Draw one bar per stage while the stages run in this process."""
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, listening(_Bars(plan, progress)):
        yield


class _Bars:
    """A listener that sums up the parts of each stage and starts a bar's clock when its stage begins."""

    def __init__(self, plan: EditPlan, progress: Progress) -> None:
        self._plan, self._progress, self._lock = plan, progress, threading.Lock()
        self._parts: dict[str, dict[str, tuple[int, int]]] = {}
        self._totals = {spec.name: plan.units(spec) for spec in STAGES}
        self._bars = {spec.name: self._add(spec) for spec in STAGES}

    def _add(self, spec: StageSpec[StageSettings]) -> TaskID:
        total = self._totals[spec.name]
        done = total if is_complete(self._plan, spec) else 0
        return self._progress.add_task(stage_label(spec), start=False, total=total, completed=done)

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
