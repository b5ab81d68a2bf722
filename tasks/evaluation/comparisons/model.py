"""The comparison of a model with the targets of the embedded one, and the choice of the settings that it advises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np

from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.clips.model_clips import ONE_OBJECT, model_clips
from tasks.evaluation.comparisons.comparison import Measure, Method, Outcome, Resources
from tasks.evaluation.comparisons.model_probe import Probe, drawing_scores, pair_scores
from tasks.evaluation.comparisons.motion import finite_scores
from wave_ops.scenes.rendering import Scene

__all__ = ["ADVICE", "COMPARISON", "AdviceComparison", "ModelComparison"]

_STEPS: Final = 50
_EDITING: Final = (
    Measure(name="edit success", unit="fraction", better="higher", target=0.85),
    Measure(name="edit success, colour", unit="fraction", better="higher", target=0.95),
    Measure(name="edit success, shape", unit="fraction", better="higher"),
    Measure(name="edit success, background colour", unit="fraction", better="higher"),
    Measure(name="edit success, background texture", unit="fraction", better="higher"),
    Measure(name="rest kept", unit="fraction", better="higher", target=0.80),
    Measure(name="preservation", unit="dB", better="higher", target=26.0),
)
_TWO_OBJECTS: Final = ("edit success", "rest kept", "preservation")
"""Metrics of edits that scenes with two objects report under their own names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelComparison:
    """One method, the unchanged model; its targets apply to calm scenes with one object.

    Edits take the default settings: the model's advice, else the method's.
    """

    steps: int = _STEPS
    name: str = "model"
    title: str = "Does the model meet its targets for round trip, generation, edges and edits?"
    version: int = 2
    baseline: str = "model"
    measures: tuple[Measure, ...] = (
        Measure(name="round trip", unit="dB", better="higher", target=30.0),
        Measure(name="inversion", unit="dB", better="higher"),
        Measure(name="inversion to round trip", unit="dB", better="higher"),
        Measure(name="inversion loss", unit="dB", better="lower", target=1.0),
        Measure(name="generation, colour", unit="fraction", better="higher", target=0.95),
        Measure(name="generation, background colour", unit="fraction", better="higher", target=0.90),
        Measure(name="generation, background texture", unit="fraction", better="higher", target=0.90),
        Measure(name="generation, shape", unit="fraction", better="higher", target=0.85),
        *_EDITING,
        Measure(name="edges followed", unit="fraction", better="higher", target=0.80),
        Measure(name="edges followed by chance", unit="fraction"),
        Measure(name="two objects, colours", unit="fraction", better="higher"),
        Measure(name="two objects, shapes", unit="fraction", better="higher"),
        *(
            Measure(name=f"two objects, {name}", unit="dB" if name == "preservation" else "fraction", better="higher")
            for name in _TWO_OBJECTS
        ),
        Measure(name="size", unit="MB", better="lower", target=25.0),
        Measure(name="seconds", unit="s", better="lower"),
    )

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """Return the model as the only method."""
        return (Method(name="model", factors={"steps": self.steps}),)

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw 64 scenes with one object and 8 with two; a quick run takes an eighth of both."""
        return model_clips(count or (9 if quick else 72), seed=seed)

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Measure everything that the model should be able to do on one scene.

        Raises:
            TaskInputError: if the clip is not a drawn scene.
        """
        scene = _scene(clip)
        for method in methods:
            started = perf_counter()
            probe = Probe(clip, scene, resources=resources, steps=method.factors["steps"])
            outcome = _one_object(probe) if clip.group == ONE_OBJECT else _two_objects(probe)
            costs = {"size": _megabytes(resources.model.location), "seconds": perf_counter() - started}
            yield method, replace(outcome, scores=finite_scores({**outcome.scores, **costs}))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviceComparison:
    """Guidance scales and injections of edits, on other scenes than `ModelComparison` takes."""

    steps: int = _STEPS
    name: str = "advice"
    title: str = "Which guidance scale and which injection should the model advise?"
    version: int = 2
    baseline: str = "as advised"
    measures: tuple[Measure, ...] = (*_EDITING, Measure(name="seconds", unit="s", better="lower"))

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """List the current advice of the model, then a grid."""
        grid = product((3.0,) if quick else (1.5, 3.0, 5.0), (0.2, 0.5, 0.8))
        return (
            Method(name="as advised", factors={"guidance": None, "injection": None, "steps": self.steps}),
            *(
                Method(
                    name=f"guidance {guidance:g}, injection {injection:g}",
                    factors={"guidance": guidance, "injection": injection, "steps": self.steps},
                )
                for guidance, injection in grid
            ),
        )

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw scenes that `ModelComparison` does not take."""
        return model_clips(count or (4 if quick else 16), seed=seed, batch=1)

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Run an edit of every kind with each setting.

        Raises:
            TaskInputError: if the clip is not a drawn scene.
        """
        probe = Probe(clip, _scene(clip), resources=resources, steps=self.steps)
        for method in methods:
            started = perf_counter()
            scores, frames, truth = probe.edit(
                guidance=method.factors["guidance"], injection=method.factors["injection"]
            )
            scores["seconds"] = perf_counter() - started
            yield method, Outcome(scores=finite_scores(scores), frames=frames, reference=truth)


COMPARISON = ModelComparison()
ADVICE = AdviceComparison()


def _one_object(probe: Probe) -> Outcome:
    """Measure edits, then the reconstruction, then images drawn from the caption, without and with edges."""
    reconstruction, rebuilt = probe.reconstruct()
    edited, frames, truth = probe.edit()
    drawn = [probe.draw()]
    scores = {**reconstruction, **drawing_scores(drawn[0], probe.spec), **edited}
    if probe.resources.controlnet is not None:
        drawn.append(probe.draw(by_edges=True))
        scores["edges followed"] = probe.overlap(drawn[1])
        scores["edges followed by chance"] = probe.overlap(drawn[0])
    source = probe.context.frames
    reference = [truth, source, *(source[: len(images)] for images in drawn)]
    return Outcome(scores=scores, frames=np.concatenate([frames, rebuilt, *drawn]), reference=np.concatenate(reference))


def _two_objects(probe: Probe) -> Outcome:
    edited, frames, truth = probe.edit()
    drawn = probe.draw()
    scores = pair_scores(drawn, probe.spec) | {f"two objects, {name}": edited[name] for name in _TWO_OBJECTS}
    reference = np.concatenate([truth, probe.context.frames[: len(drawn)]])
    return Outcome(scores=scores, frames=np.concatenate([frames, drawn]), reference=reference)


def _scene(clip: EvaluationClip) -> Scene:
    if clip.scene is None:
        raise TaskInputError(f"{clip.name} is not a drawn scene; this comparison needs the ground truth of one.")
    return clip.scene


def _megabytes(folder: str) -> float:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6
