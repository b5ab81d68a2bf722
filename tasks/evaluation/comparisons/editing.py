"""The comparison of ways to edit keyframes, and what its ablations share with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.clips.scene_clips import scene_clips
from tasks.evaluation.comparison import EvaluationClip, Measure, Method, Outcome, Resources
from tasks.evaluation.comparisons.edit_metrics import EDIT_MEASURES, Judge
from tasks.evaluation.comparisons.keyframes import Bench, Effort, Handling, SiteChoice, Warping, mean_psnr, measured
from tasks.evaluation.comparisons.motion import mean
from tasks.planning.advice import resolve_advice
from wave_ops.diffusion import decode_latents
from wave_ops.edges import canny_edges
from wave_ops.editing import EditingSettings, edit
from wave_ops.inversion import InversionSettings, NoisePoint
from wave_ops.schedule import WarpSchedule, WarpWindow
from wave_ops.unet import Anchor

__all__ = ["COMPARISON", "EditingComparison", "Recipe"]

Frames = NDArray[np.uint8]

STEPS: Final = 50
QUICK_STEPS: Final = 20
_EFFORT_MEASURES: Final = (
    Measure(name="UNet calls", unit="", better="lower"),
    Measure(name="seconds", unit="s", better="lower"),
)
_FIDELITY_MEASURES: Final = (
    Measure(name="reconstruction", unit="dB", better="higher"),
    Measure(name="warp fidelity", unit="dB", better="higher"),
)
"""PSNR to the source after sampling back, with warps, the warped inversion and the plain one. The first says little
about the warps: what they change on the way there they change again on the way back. The second is what they alone
spoil, so it is highest where little is warped: to be read beside the warp error, which they are there to lower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to edit keyframes; by default the full method. The factors of a method are fields of it."""

    steps: int = STEPS
    inversion: Literal["plain", "warped"] = "warped"
    noise_point: NoisePoint = InversionSettings().noise_point
    """Where each step of the inversion predicts its noise."""
    refinements: int = 0
    """Fixed-point refinements of each step of the inversion."""
    window: WarpWindow = "aligned"
    warp: bool = True
    """Whether features are warped while editing."""
    extended: bool = True
    """Whether attention reaches the anchor's tokens, in the steps in which the method warps."""
    injection: float = 0.5
    """Part of the steps with plug-and-play injection; 0 for none."""
    controlnet: bool = False
    anchor: Anchor = "order"
    sites: SiteChoice = "method"
    flow: Literal["estimated", "true"] = "estimated"
    residual: float | None = 0.04
    occlusion: Literal["plain", "squared"] | None = "plain"

    @property
    def schedule(self) -> WarpSchedule:
        """The steps of inversion and edit."""
        return WarpSchedule(steps=self.steps, window=self.window)

    @property
    def warping(self) -> Warping:
        """How features are warped, where they are."""
        return Warping(flow=self.flow, residual=self.residual, occlusion=self.occlusion, sites=self.sites)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditingComparison:
    """Recipes of editing on the same clips, with the same inversions where they have them in common."""

    name: str
    title: str
    baseline: str
    recipes: Mapping[str, Mapping[str, Any]]
    """Name to factors, the baseline among them; each is run in the steps of the run unless it names its own."""
    quick_recipes: tuple[str, ...] | None = None
    """What a quick run takes; None for all."""
    clip_count: int = 20
    reconstructs: bool = False
    """Whether the warps are measured by themselves too, by sampling the source back."""
    version: int = 1
    handling: Handling = field(default_factory=Handling)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is measured, most telling first."""
        return (*EDIT_MEASURES, *(_FIDELITY_MEASURES if self.reconstructs else ()), *_EFFORT_MEASURES)

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """The recipes; a quick run takes fewer steps where a recipe does not name its own."""
        steps = QUICK_STEPS if quick else STEPS
        names = self.recipes if self.quick_recipes is None or not quick else self.quick_recipes
        chosen = {name: self.recipes[name] for name in names}
        return tuple(
            Method(name=name, factors={**recipe, "steps": recipe.get("steps", steps)})
            for name, recipe in chosen.items()
        )

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw scenes with one edit each."""
        return scene_clips(count or (4 if quick else self.clip_count), seed=seed)

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Edit the keyframes by every recipe; scores are means over the clip's edits."""
        bench = Bench(clip, resources, handling=self.handling)
        judge = Judge(bench)
        for method in methods:
            recipe = Recipe(**method.factors)
            possible = _possible(recipe, bench)
            yield method, self._outcome(bench, judge, recipe) if possible else Outcome(scores={})

    def _outcome(self, bench: Bench, judge: Judge, recipe: Recipe) -> Outcome:
        made, each = [], []
        for place in range(len(bench.clip.edits)):
            frames, effort = edit_keyframes(bench, recipe, place=place)
            costs = {"UNet calls": float(effort.calls), "seconds": effort.seconds}
            made.append(frames)
            each.append(judge.figures(place, frames) | costs)
        scores = {name: mean(found[name] for found in each if name in found) for found in each for name in found}
        if self.reconstructs:
            scores |= _fidelity(bench, recipe)
        return Outcome(scores=scores, frames=made[0], reference=judge.reference(0))


def edit_keyframes(bench: Bench, recipe: Recipe, *, place: int = 0) -> tuple[Frames, Effort]:
    """Invert the keyframes of a clip and edit them; the effort counts an inversion that recipes share for each."""
    asked, advice = bench.clip.edits[place], resolve_advice(bench.resources.model.advice)
    inverted = bench.invert(_inversion(recipe, bench), recipe.warping if recipe.inversion == "warped" else None)
    warps = bench.warps(recipe.warping if recipe.warp else None)
    with bench.model(recipe.sites) as model, measured(model, after=inverted.effort) as effort:
        latents = edit(
            model,
            inverted.latents.__getitem__,
            prompt=asked.prompt,
            source_prompt=bench.clip.caption,
            negative_prompt=advice.negative_prompt,
            orders=bench.handling.orders(inverted.orders),
            warps=warps,
            settings=_settings(recipe, bench),
            edges=canny_edges(bench.frames) if recipe.controlnet else None,
        )
        frames = decode_latents(model, latents)
    return frames, effort


def _settings(recipe: Recipe, bench: Bench) -> EditingSettings:
    """The recipe's settings, with the guidance that the model advises."""
    return EditingSettings(
        schedule=recipe.schedule,
        guidance_scale=resolve_advice(bench.resources.model.advice).guidance_scale,
        injection_fraction=recipe.injection,
        extended_attention=recipe.extended,
        anchor=recipe.anchor,
    )


def _inversion(recipe: Recipe, bench: Bench) -> InversionSettings:
    return InversionSettings(
        schedule=recipe.schedule,
        seed=bench.resources.seed,
        noise_point=recipe.noise_point,
        refinements=recipe.refinements,
    )


def _fidelity(bench: Bench, recipe: Recipe) -> dict[str, float]:
    ways = {"reconstruction": recipe.warping, "warp fidelity": None}
    settings, warping = _inversion(recipe, bench), recipe.warping
    made = {name: bench.reconstruct(settings, inversion=way, sampling=warping)[1] for name, way in ways.items()}
    return {name: mean_psnr(frames, bench.frames) for name, frames in made.items()}


def _possible(recipe: Recipe, bench: Bench) -> bool:
    """Whether this run has what a recipe needs: a ControlNet, the true flow."""
    has_control = bench.resources.controlnet is not None
    return (has_control or not recipe.controlnet) and (bench.clip.scene is not None or recipe.flow == "estimated")


_LADDER: Final[Mapping[str, Mapping[str, Any]]] = {
    "full": {"inversion": "warped", "warp": True, "extended": True},
    "warp + extended": {"inversion": "plain", "warp": True, "extended": True},
    "warp": {"inversion": "plain", "warp": True, "extended": False},
    "no warp": {"inversion": "plain", "warp": False, "extended": True},
    "independent": {"inversion": "plain", "warp": False, "extended": False},
}


def _grid() -> dict[str, dict[str, Any]]:
    """The ladder with and without plug-and-play and ControlNet; names tell what the baseline does not have."""
    return {
        f"{name}{'' if injection else ', no injection'}{', ControlNet' if controlnet else ''}": {
            **steps,
            "injection": injection,
            "controlnet": controlnet,
        }
        for controlnet in (False, True)
        for injection in (0.5, 0.0)
        for name, steps in _LADDER.items()
    }


COMPARISON = EditingComparison(
    name="editing",
    title="What does each part of the method bring to an edit, and what does it cost?",
    baseline="full",
    recipes=_grid(),
    quick_recipes=tuple(_LADDER),
)
