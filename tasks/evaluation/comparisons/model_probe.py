"""What a model can do with one scene: carry it, draw it, follow its edges, edit it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.evaluation.comparison import EvaluationClip, Resources
from tasks.evaluation.comparisons.edit_metrics import Judge
from tasks.evaluation.comparisons.keyframes import Bench, Handling, Warping, fit_masks, mean_psnr
from tasks.evaluation.comparisons.motion import mean
from tasks.planning.advice import resolve_advice
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
"""At which pictures are drawn."""
_DRAWN: Final = 2
"""Pictures drawn of each caption."""
_OBJECT_EDITS: Final = ("colour", "shape")
_PRESENT_SHARE: Final = 0.01


class Probe:
    """One scene with what its measurements share: latents, flows and inversions."""

    def __init__(self, clip: EvaluationClip, scene: Scene, *, resources: Resources, steps: int) -> None:
        self.clip, self.scene, self.resources = clip, scene, resources
        self.bench = Bench(clip, resources, handling=Handling(), interval=1)
        self.judge = Judge(self.bench)
        self.inversion = InversionSettings(schedule=WarpSchedule(steps=steps), seed=resources.seed)

    def carry(self) -> tuple[dict[str, float], Frames]:
        """Encode and decode the keyframes; invert them without warping, and sample them back at guidance 1."""
        _, round_trip = self.bench.encoded()
        _, rebuilt, _ = self.bench.reconstruct(self.inversion, inversion=None, sampling=None)
        ceiling, reached = (mean_psnr(frames, self.bench.frames) for frames in (round_trip, rebuilt))
        scores = {
            "round trip": ceiling,
            "inversion": reached,
            "inversion to round trip": mean_psnr(rebuilt, round_trip),
            "inversion loss": ceiling - reached,
        }
        return scores, rebuilt

    def draw(self, *, by_edges: bool = False) -> Frames:
        """Draw the caption from noise, one picture for each of the first keyframes; by their edges if asked to."""
        settings = EditingSettings(
            schedule=self.inversion.schedule,
            guidance_scale=_GUIDANCE,
            injection_fraction=0.0,
            extended_attention=False,
            controlnet_scale=1.0,
        )
        with self.bench.model() as model:
            sides = [side // model.vae_factor for side in self.bench.size]
            generator = torch.Generator().manual_seed(int(self.clip.digest[:12], 16) + self.resources.seed)
            noise = torch.randn((_DRAWN, model.unet.config.in_channels, *sides), generator=generator)
            # An edit that takes nothing from a source, warps nothing and starts from noise draws its prompt
            latents = edit(
                model,
                lambda _: noise,
                prompt=self.clip.caption,
                source_prompt="",
                negative_prompt="",
                orders=(tuple(range(_DRAWN)),) * settings.steps,
                warps=None,
                settings=settings,
                edges=canny_edges(self.bench.frames[:_DRAWN]) if by_edges else None,
            )
            return decode_latents(model, latents)

    @property
    def spec(self) -> SceneSpec:
        """What was drawn."""
        return self.scene.shots[0]

    def overlap(self, drawn: Frames) -> float:
        """How well the object lies where the first keyframes have it, intersection over union."""
        masks = fit_masks(self.scene.object_masks[list(self.bench.keyframes[:_DRAWN]), 0], self.bench.size)
        return object_overlap(drawn, masks, colour=self.spec.objects[0].colour, background=self.spec.background.colour)

    def edit(
        self, *, guidance: float | None = None, injection: float | None = None
    ) -> tuple[dict[str, float], Frames, Frames]:
        """Ask for every edit of the clip with the full method; scores, edited keyframes, and the true ones.

        Guidance and injection are those of an edit that says nothing of them: the model's advice, else the method's.
        """
        frames = [self._edited(place, guidance, injection) for place in range(len(self.clip.edits))]
        found = {
            asked.kind: self.judge.figures(place, made)
            for place, (asked, made) in enumerate(zip(self.clip.edits, frames, strict=True))
        }
        successes = {kind: figures.get("edit success", np.nan) for kind, figures in found.items()}
        scores = {
            "edit success": mean(successes.values()),
            **{f"edit success, {kind}": success for kind, success in successes.items()},
            "rest kept": mean(figures.get("rest kept", np.nan) for figures in found.values()),
            "preservation": mean(found[kind].get("preservation", np.nan) for kind in _OBJECT_EDITS if kind in found),
        }
        truths = [self.judge.reference(place) for place in range(len(frames))]
        return scores, np.concatenate(frames), np.concatenate(truths)

    def _edited(self, place: int, guidance: float | None, injection: float | None) -> Frames:
        bench = self.bench
        advice = resolve_advice(self.resources.model.advice, guidance_scale=guidance, injection=injection)
        inverted, warps = bench.invert(self.inversion, Warping()), bench.warps(Warping())
        settings = EditingSettings(
            schedule=self.inversion.schedule,
            guidance_scale=advice.guidance_scale,
            injection_fraction=advice.injection_fraction,
        )
        controlled = EditRequest.model_fields["controlnet"].default != "none"
        with bench.model() as model:
            latents = edit(
                model,
                inverted.latents.__getitem__,
                prompt=self.clip.edits[place].prompt,
                source_prompt=self.clip.caption,
                negative_prompt=advice.negative_prompt,
                orders=inverted.orders,
                warps=warps,
                settings=settings,
                edges=canny_edges(bench.frames) if controlled else None,
            )
            return decode_latents(model, latents)


def drawing_scores(drawn: Frames, spec: SceneSpec) -> dict[str, float]:
    """In what share of pictures of a scene with one object the checker reads what the caption says."""
    item, ground = spec.objects[0], spec.background
    found = [read_attributes(frame) for frame in drawn]
    return {
        "generation, colour": _share(each.colour == item.colour for each in found),
        "generation, background colour": _share(each.background_colour == ground.colour for each in found),
        "generation, background texture": _share(each.background_texture == ground.texture for each in found),
        "generation, shape": _share(each.shape == item.shape for each in found),
    }


def pair_scores(drawn: Frames, spec: SceneSpec) -> dict[str, float]:
    """The same for a scene with two objects: which of them are there in their colours, and in their shapes."""
    ground = spec.background.colour
    regions = [
        (item, find_object(frame, colour=item.colour, background=ground)) for frame in drawn for item in spec.objects
    ]
    seen = [region.mean() > _PRESENT_SHARE for _, region in regions]
    shapes = [there and read_shape(region) == item.shape for there, (item, region) in zip(seen, regions, strict=True)]
    return {"two objects, colours": _share(seen), "two objects, shapes": _share(shapes)}


def _share(values: Iterable[bool]) -> float:
    return float(np.mean(list(values)))
