"""A small comparison for tests: coarse copies of drawn clips, with a record of the computed outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.digest import digest_of
from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.comparisons.comparison import Measure, Method, Outcome, Resources
from tasks.evaluation.comparisons.registry import COMPARISONS
from tasks.evaluation.plan import EvaluationPlan, planned_clips
from tasks.evaluation.request import EvaluationRequest
from tasks.evaluation.resources import resources_digest
from tasks.evaluation.results import Results
from tasks.models.checkpoints import Advice
from wave_ops.errors import WaveOpsError
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import random_scene

__all__ = ["RESOURCES", "CoarseCopies", "coarse_plan", "make_results", "with_coarse"]

RESOURCES = Resources(
    model=SimpleNamespace(name="tiny", digest="m" * 24, advice=Advice()),
    controlnet=None,
    flow=SimpleNamespace(name="dis", digest=""),
    device="cpu",
    dtype="float32",
    seed=0,
)
GROUPS = ("calm", "hard motion")


@dataclass(kw_only=True)
class CoarseCopies:
    """Copies on a coarser grid; the finest is the baseline."""

    name: str = "coarse"
    title: str = "How coarse may <b>a copy</b> be?"
    version: int = 1
    baseline: str = "every 2"
    measures: tuple[Measure, ...] = (
        Measure(name="PSNR", unit="dB", better="higher", target=15.0),
        Measure(name="size", unit="fraction", better="lower", target=0.01, target_method="every 4"),
        Measure(name="calls", unit=""),
        Measure(name="LPIPS", unit="", better="lower"),
    )
    factors: tuple[int, ...] = (2, 4, 8)
    computed: list[tuple[str, str]] = field(default_factory=list)
    """Clip and method of every computed outcome."""
    fails_at: tuple[str, str] | None = None
    closed: int = 0

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        chosen = self.factors[:2] if quick else self.factors
        return tuple(Method(name=f"every {step}", factors={"step": step, "kind": "area"}) for step in chosen)

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        return tuple(_clip(i, seed) for i in range(count or (2 if quick else 4)))

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        try:
            for method in methods:
                if (clip.name, method.name) == self.fails_at:
                    raise WaveOpsError("the grid is too coarse")
                self.computed.append((clip.name, method.name))
                yield method, _outcome(clip, method.factors["step"])
        finally:
            self.closed += 1


def coarse_plan(coarse: CoarseCopies, workspace: Path, *, seed: int = 0, clips: int = 2) -> EvaluationPlan:
    """Plan a run of the comparison without resolving any network."""
    request = EvaluationRequest(comparison="coarse", clips=clips, seed=seed)
    return EvaluationPlan(
        request=request,
        methods=coarse.methods(quick=False),
        clips=planned_clips(request),
        resources=RESOURCES,
        identity=digest_of(coarse.name, coarse.version, resources_digest(RESOURCES)),
        workspace=str(workspace),
    )


def make_results(
    values: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    measures: Sequence[Measure],
    factors: Mapping[str, Mapping[str, Any]] | None = None,
    groups: Sequence[str] = (),
) -> Results:
    """Build results from values by method, metric and clip; the first method is the baseline."""
    count = len(next(iter(next(iter(values.values())).values())))
    rows = [
        {
            "clip": f"clip-{i}",
            "group": groups[i] if groups else "calm",
            "method": method,
            "measure": measure,
            "value": value,
        }
        for method, by_measure in values.items()
        for measure, column in by_measure.items()
        for i, value in enumerate(column)
    ]
    assert len(rows) == count * sum(map(len, values.values()))
    return Results(
        name="fake",
        title="Which is better?",
        baseline=next(iter(values)),
        measures=tuple(measures),
        methods=tuple(Method(name=name, factors=(factors or {}).get(name, {"way": name})) for name in values),
        metrics=pd.DataFrame(rows).astype({"value": float}),
    )


def _outcome(clip: EvaluationClip, step: int) -> Outcome:
    made = np.stack([_coarse(frame, step) for frame in clip.frames])
    error = np.mean((made.astype(float) - clip.frames) ** 2)
    scores = {"PSNR": 10 * np.log10(255**2 / error), "size": 1 / step**2, "calls": float("nan") if step == 8 else 1}
    return Outcome(scores=scores, frames=made)


def _coarse(frame: NDArray[np.uint8], step: int) -> Any:
    height, width = frame.shape[:2]
    small = cv2.resize(frame, (width // step, height // step), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def _clip(index: int, seed: int) -> EvaluationClip:
    group = GROUPS[index % 2]
    spec = random_scene(100 * seed + index, size=(32, 32), frame_count=4, hard=group == "hard motion")
    scene = render(spec)
    return EvaluationClip(
        name=f"{group.split()[0]}-{index:02d}",
        group=group,
        frames=scene.frames,
        caption=scene.caption,
        edits=(),
        scene=scene,
        digest=digest_of("coarse clip", repr(spec)),
    )


def with_coarse(monkeypatch: Any, **changes: Any) -> CoarseCopies:
    """Register a new comparison until the monkeypatch is undone: there is none before, and none afterwards."""
    coarse = CoarseCopies(**changes)
    monkeypatch.setattr("tests._evaluation.COARSE", coarse, raising=False)
    registered = {**COMPARISONS, "coarse": "tests._evaluation:COARSE"}
    monkeypatch.setattr("tasks.evaluation.comparisons.registry.COMPARISONS", registered)
    return coarse
