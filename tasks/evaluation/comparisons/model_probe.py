"""Measurements of a model on one scene: reconstruction, generation, agreement with edges, edits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.comparisons.comparison import Resources
from tasks.evaluation.comparisons.edit_metrics import EditScorer
from tasks.evaluation.comparisons.keyframes import KeyframeContext, Warping, fit_masks, mean_psnr
from tasks.evaluation.comparisons.motion import mean
from tasks.planning.method import MethodChoices, resolve_method
from tasks.planning.request import EditRequest
from wave_ops.diffusion import decode_latents
from wave_ops.edges import canny_edges
from wave_ops.editing import EditingSettings, edit
from wave_ops.inversion import InversionSettings
from wave_ops.metrics import object_overlap
from wave_ops.scenes.reading import find_object, read_attributes, read_shape
from wave_ops.scenes.rendering import Scene
from wave_ops.scenes.specs import SceneSpec
from wave_ops.schedule import WarpSchedule

__all__ = ["Probe", "drawing_scores", "pair_scores"]

Frames = NDArray[np.uint8]

_GUIDANCE: Final = 5.0
"""Guidance scale of generation."""
_DRAWN: Final = 2
"""Images drawn from each caption."""
_OBJECT_EDITS: Final = ("colour", "shape")
_PRESENT_FRACTION: Final = 0.01
"""Fraction of the image that an object must cover to count as present."""


class Probe:
    """One scene with what its measurements share: latents, flows and inversions."""

    def __init__(self, clip: EvaluationClip, scene: Scene, *, resources: Resources, steps: int) -> None:
        self.clip, self.scene, self.resources = clip, scene, resources
        self.context = KeyframeContext(clip, resources, interval=1)
        self.scorer = EditScorer(self.context)
        self.inversion = InversionSettings(schedule=WarpSchedule(steps=steps), seed=resources.seed)

    def reconstruct(self) -> tuple[dict[str, float], Frames]:
        """Measure the VAE's round trip, and the reconstruction from a plain inversion at guidance 1."""
        _, round_trip = self.context.encoded()
        _, rebuilt, _ = self.context.reconstruct(self.inversion, inversion=None, sampling=None)
        ceiling, reconstruction = (mean_psnr(frames, self.context.frames) for frames in (round_trip, rebuilt))
        scores = {
            "round trip": ceiling,
            "inversion": reconstruction,
            "inversion to round trip": mean_psnr(rebuilt, round_trip),
            "inversion loss": ceiling - reconstruction,
        }
        return scores, rebuilt

    def draw(self, *, by_edges: bool = False) -> Frames:
        """Generate images from the caption, one for each of the first keyframes, optionally with their edges."""
        settings = EditingSettings(
            schedule=self.inversion.schedule,
            guidance_scale=_GUIDANCE,
            injection_fraction=0.0,
            extended_attention=False,
            controlnet_scale=1.0,
        )
        with self.context.model() as model:
            sides = [side // model.vae_factor for side in self.context.size]
            generator = torch.Generator().manual_seed(int(self.clip.digest[:12], 16) + self.resources.seed)
            noise = torch.randn((_DRAWN, model.unet.config.in_channels, *sides), generator=generator)
            # An edit without source, injection or warps that starts from noise is plain generation
            latents = edit(
                model,
                lambda _: noise,
                prompt=self.clip.caption,
                source_prompt="",
                negative_prompt="",
                orders=(tuple(range(_DRAWN)),) * settings.steps,
                warps=None,
                settings=settings,
                edges=canny_edges(self.context.frames[:_DRAWN]) if by_edges else None,
            )
            return decode_latents(model, latents)

    @property
    def spec(self) -> SceneSpec:
        """The specification that the scene was drawn from."""
        return self.scene.shots[0]

    def overlap(self, drawn: Frames) -> float:
        """Compute the IoU of the drawn object and the object in the first keyframes."""
        masks = fit_masks(self.scene.object_masks[list(self.context.keyframes[:_DRAWN]), 0], self.context.size)
        return object_overlap(drawn, masks, colour=self.spec.objects[0].colour, background=self.spec.background.colour)

    def edit(
        self, *, guidance: float | None = None, injection: float | None = None
    ) -> tuple[dict[str, float], Frames, Frames]:
        """Run every edit of the clip with the full method; return scores, edited keyframes, and the true ones.

        Args:
            guidance: guidance scale; None for the model's advice, else the method's default.
            injection: fraction of the steps with injection; None likewise.
        """
        frames = [self._edited(index, guidance, injection) for index in range(len(self.clip.edits))]
        found = {
            requested.kind: self.scorer.scores(index, edited)
            for index, (requested, edited) in enumerate(zip(self.clip.edits, frames, strict=True))
        }
        successes = {kind: scores.get("edit success", np.nan) for kind, scores in found.items()}
        scores = {
            "edit success": mean(successes.values()),
            **{f"edit success, {kind}": success for kind, success in successes.items()},
            "rest kept": mean(each.get("rest kept", np.nan) for each in found.values()),
            "preservation": mean(found[kind].get("preservation", np.nan) for kind in _OBJECT_EDITS if kind in found),
        }
        truths = [self.scorer.reference(index) for index in range(len(frames))]
        return scores, np.concatenate(frames), np.concatenate(truths)

    def _edited(self, index: int, guidance: float | None, injection: float | None) -> Frames:
        context = self.context
        advised = resolve_method(
            MethodChoices(advice=self.resources.model.advice, guidance_scale=guidance, injection=injection)
        )
        inverted, warps = context.invert(self.inversion, Warping()), context.warps(Warping())
        settings = replace(advised.editing, schedule=self.inversion.schedule)
        controlled = EditRequest(video=self.clip.name, prompt=self.clip.caption).controlnets
        with context.model() as model:
            latents = edit(
                model,
                inverted.latents.__getitem__,
                prompt=self.clip.edits[index].prompt,
                source_prompt=self.clip.caption,
                negative_prompt=advised.negative_prompt,
                orders=inverted.orders,
                warps=warps,
                settings=settings,
                edges=canny_edges(context.frames) if controlled else None,
            )
            return decode_latents(model, latents)


def drawing_scores(drawn: Frames, spec: SceneSpec) -> dict[str, float]:
    """Compute in which fraction of images the checker reads the attributes of the caption, for one object."""
    item, ground = spec.objects[0], spec.background
    found = [read_attributes(frame) for frame in drawn]
    return {
        "generation, colour": _fraction(each.colour == item.colour for each in found),
        "generation, background colour": _fraction(each.background_colour == ground.colour for each in found),
        "generation, background texture": _fraction(each.background_texture == ground.texture for each in found),
        "generation, shape": _fraction(each.shape == item.shape for each in found),
    }


def pair_scores(drawn: Frames, spec: SceneSpec) -> dict[str, float]:
    """Compute the fractions of the two objects that are drawn in their colour, and in their shape."""
    ground = spec.background.colour
    regions = [
        (item, find_object(frame, colour=item.colour, background=ground)) for frame in drawn for item in spec.objects
    ]
    present = [region.mean() > _PRESENT_FRACTION for _, region in regions]
    shapes = [seen and read_shape(region) == item.shape for seen, (item, region) in zip(present, regions, strict=True)]
    return {"two objects, colours": _fraction(present), "two objects, shapes": _fraction(shapes)}


def _fraction(values: Iterable[bool]) -> float:
    return float(np.mean(list(values)))
