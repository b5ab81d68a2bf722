"""The comparison of methods to edit keyframes; its ablations use the same code with other recipes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.clips.clip import EvaluationClip, split_shots
from tasks.evaluation.clips.scene_clips import scene_clips
from tasks.evaluation.comparisons.comparison import Measure, Method, Outcome, Resources
from tasks.evaluation.comparisons.edit_metrics import EDIT_MEASURES, EditScorer
from tasks.evaluation.comparisons.keyframes import Cost, KeyframeContext, SiteChoice, Warping, mean_psnr, measure_cost
from tasks.evaluation.comparisons.motion import mean
from tasks.evaluation.comparisons.reference_rows import EDITED, REFERENCE_ROWS, reference_methods
from tasks.planning.method import Method as ResolvedMethod
from tasks.planning.method import MethodChoices, resolve_method
from wave_ops.diffusion import decode_latents
from wave_ops.edges import canny_edges
from wave_ops.editing import EditingSettings, edit
from wave_ops.inversion import InversionSettings, NoisePoint
from wave_ops.schedule import WarpSchedule, WarpWindow
from wave_ops.unet import Anchor

__all__ = ["COMPARISON", "EditingComparison", "Recipe", "edit_clip_keyframes", "reference_outcome"]

Frames = NDArray[np.uint8]

STEPS: Final = 50
QUICK_STEPS: Final = 20
_COST_MEASURES: Final = (
    Measure(name="UNet calls", unit="", better="lower"),
    Measure(name="seconds", unit="s", better="lower"),
)
_FIDELITY_MEASURES: Final = (
    Measure(name="reconstruction", unit="dB", better="higher"),
    Measure(name="warp fidelity", unit="dB", better="higher"),
)
"""PSNR to the source after warped sampling from the warped inversion, and from the plain one. The first says little
about the warps: sampling applies the same warps as inversion did. The second measures the damage of the warps alone and
is highest where little is warped: read it together with the warp error, which the warps should lower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One method to edit keyframes; by default the full method. The factors of a `Method` are fields of it."""

    frames: str = EDITED
    """A reference row has its own name here, and edits nothing."""
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
    """Whether attention is extended by the anchor's tokens, in the steps in which the method warps."""
    injection: float = 0.5
    """Fraction of the steps with plug-and-play injection; 0 for none."""
    controlnet: bool = False
    anchor: Anchor = "order"
    sites: SiteChoice = "method"
    flow: Literal["estimated", "true"] = "estimated"
    residual: float | None = 0.04
    occlusion: Literal["plain", "squared"] | None = "plain"

    @property
    def schedule(self) -> WarpSchedule:
        """The number of steps and the warped ones, of inversion and edit alike."""
        return WarpSchedule(steps=self.steps, window=self.window)

    @property
    def warping(self) -> Warping:
        """How features are warped."""
        return Warping(flow=self.flow, residual=self.residual, occlusion=self.occlusion, sites=self.sites)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditingComparison:
    """Recipes of editing on the same clips; recipes with the same inversion share it."""

    name: str
    title: str
    baseline: str
    recipes: Mapping[str, Mapping[str, Any]]
    """Factors by name, including the baseline; a recipe takes the steps of the run unless it names its own."""
    quick_recipes: tuple[str, ...] | None = None
    """The recipes of a quick run; None for all."""
    clip_count: int = 20
    reconstructs: bool = False
    """Whether the warps are also measured by themselves, by reconstructing the source."""
    version: int = 3

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The metrics, most important first."""
        return (*EDIT_MEASURES, *(_FIDELITY_MEASURES if self.reconstructs else ()), *_COST_MEASURES)

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """List the recipes; a quick run takes fewer steps if a recipe does not name its own."""
        steps = QUICK_STEPS if quick else STEPS
        names = self.recipes if self.quick_recipes is None or not quick else self.quick_recipes
        chosen = {name: self.recipes[name] for name in names}
        methods = tuple(
            Method(name=name, factors={**recipe, "steps": recipe.get("steps", steps), "frames": EDITED})
            for name, recipe in chosen.items()
        )
        return (*methods, *reference_methods(methods[0].factors))

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw scenes with one edit each."""
        return scene_clips(count or (4 if quick else self.clip_count), seed=seed)

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Edit the keyframes by every recipe, shot by shot; scores are means over the clip's edits."""
        scorer = EditScorer(KeyframeContext(clip, resources))
        shots = [KeyframeContext(shot, resources) for shot in split_shots(clip)]
        for method in methods:
            if method.reference:
                yield method, reference_outcome(scorer, method.name)
                continue
            recipe = Recipe(**method.factors)
            if _is_possible(recipe, scorer.context):
                yield method, self._outcome(shots, scorer, recipe)
            else:
                yield method, Outcome(scores={})

    def _outcome(self, shots: Sequence[KeyframeContext], scorer: EditScorer, recipe: Recipe) -> Outcome:
        edited, each = [], []
        for index in range(len(scorer.clip.edits)):
            made = [edit_clip_keyframes(shot, recipe, index=index) for shot in shots]
            frames = np.concatenate([found for found, _ in made])
            costs = {
                "UNet calls": mean(cost.calls for _, cost in made),
                "seconds": sum(cost.seconds for _, cost in made),
            }
            edited.append(frames)
            each.append(scorer.scores(index, frames) | costs)
        scores = _means(each)
        if self.reconstructs:
            scores |= _means([_fidelity(shot, recipe) for shot in shots])
        return Outcome(scores=scores, frames=edited[0], reference=scorer.reference(0))


def reference_outcome(scorer: EditScorer, name: str) -> Outcome:
    """Measure the frames of a reference row; without scores if it needs a true edit that is not known."""
    edits = range(len(scorer.clip.edits))
    if name != "source unchanged" and any(scorer.truth(edit) is None for edit in edits):
        return Outcome(scores={})
    frames = [REFERENCE_ROWS[name](scorer.context.frames, scorer.reference(edit)) for edit in edits]
    scores = _means([scorer.scores(edit, made) for edit, made in zip(edits, frames, strict=True)])
    return Outcome(scores=scores, frames=frames[0], reference=scorer.reference(0))


def _means(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average each score over those that have it."""
    return {name: mean(found[name] for found in each if name in found) for found in each for name in found}


def edit_clip_keyframes(context: KeyframeContext, recipe: Recipe, *, index: int = 0) -> tuple[Frames, Cost]:
    """Invert the keyframes of a clip and apply its edit `index`.

    Returns:
        Frames (keyframe, height, width, 3) at the model's size, and the cost of inversion and edit; an inversion that
        recipes share counts for each of them.
    """
    requested, advised = context.clip.edits[index], _advised(context)
    inverted = context.invert(_inversion(recipe, context), recipe.warping if recipe.inversion == "warped" else None)
    warps = context.warps(recipe.warping if recipe.warp else None)
    with context.model(recipe.sites) as model, measure_cost(model, after=inverted.cost) as cost:
        latents = edit(
            model,
            inverted.latents.__getitem__,
            prompt=requested.prompt,
            source_prompt=context.clip.caption,
            negative_prompt=advised.negative_prompt,
            orders=inverted.orders,
            warps=warps,
            settings=_settings(recipe, context),
            edges=canny_edges(context.frames) if recipe.controlnet else None,
        )
        frames = decode_latents(model, latents)
    return frames, cost


def _advised(context: KeyframeContext) -> ResolvedMethod:
    return resolve_method(MethodChoices(advice=context.resources.model.advice))


def _settings(recipe: Recipe, context: KeyframeContext) -> EditingSettings:
    """Return the recipe's settings, with the guidance scale that the model advises."""
    return EditingSettings(
        schedule=recipe.schedule,
        guidance_scale=_advised(context).editing.guidance_scale,
        injection_fraction=recipe.injection,
        extended_attention=recipe.extended,
        anchor=recipe.anchor,
    )


def _inversion(recipe: Recipe, context: KeyframeContext) -> InversionSettings:
    return InversionSettings(
        schedule=recipe.schedule,
        seed=context.shuffle_seed,
        noise_point=recipe.noise_point,
        refinements=recipe.refinements,
    )


def _fidelity(context: KeyframeContext, recipe: Recipe) -> dict[str, float]:
    inversions = {"reconstruction": recipe.warping, "warp fidelity": None}
    settings, scores = _inversion(recipe, context), {}
    for name, inversion in inversions.items():
        _, frames, _ = context.reconstruct(settings, inversion=inversion, sampling=recipe.warping)
        scores[name] = mean_psnr(frames, context.frames)
    return scores


def _is_possible(recipe: Recipe, context: KeyframeContext) -> bool:
    """Return whether the run has the ControlNet and the true flow, if the recipe needs them."""
    has_control = context.resources.controlnet is not None
    return (has_control or not recipe.controlnet) and (context.clip.scene is not None or recipe.flow == "estimated")


_LADDER: Final[Mapping[str, Mapping[str, Any]]] = {
    "full": {"inversion": "warped", "warp": True, "extended": True},
    "warp + extended": {"inversion": "plain", "warp": True, "extended": True},
    "warp": {"inversion": "plain", "warp": True, "extended": False},
    "no warp": {"inversion": "plain", "warp": False, "extended": True},
    "independent": {"inversion": "plain", "warp": False, "extended": False},
}


def _grid() -> dict[str, dict[str, Any]]:
    """Combine the ladder with plug-and-play and ControlNet, on and off; names list differences from the baseline."""
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
    title="What does each part of the method add to an edit, and what does it cost?",
    baseline="full",
    recipes=_grid(),
    quick_recipes=tuple(_LADDER),
)
