"""Metrics of edited keyframes: against the true edit on scenes, without it on real clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import log2, nan
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.evaluation.clips.clip import Edit
from tasks.evaluation.clips.scene_clips import EDITED_ATTRIBUTE, UNIQUE_KINDS
from tasks.evaluation.comparisons.comparison import Measure
from tasks.evaluation.comparisons.keyframes import KeyframeContext, fit_masks, mean_psnr
from tasks.evaluation.comparisons.motion import finite_scores, mean
from tasks.models.metric_networks import load_clip_model, load_lpips
from wave_ops.masks import occlusion_mask
from wave_ops.metrics import (
    attribute_hits,
    embed_frames,
    embed_text,
    frame_accuracy,
    mixed_frames,
    object_overlap,
    outside_objects,
    preservation,
    temporal_consistency,
    text_alignment,
    warp_error,
)
from wave_ops.resize import to_images
from wave_ops.scenes.rendering import Scene, match_frames
from wave_ops.scenes.specs import SceneSpec
from wave_ops.warp import resize_flow

__all__ = ["EDIT_MEASURES", "Checks", "EditScorer", "TrueShot", "Truth"]

Frames = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Times = NDArray[np.bool_]

EDIT_MEASURES: Final = (
    Measure(name="frames that pass everything", unit="fraction", better="higher"),
    Measure(name="edit success", unit="fraction", better="higher", target=0.85),
    Measure(name="colour success", unit="fraction", better="higher", target=0.95),
    Measure(name="rest kept", unit="fraction", better="higher", target=0.80),
    Measure(name="preservation", unit="dB", better="higher", target=26.0),
    Measure(name="preservation if successful", unit="dB", better="higher"),
    Measure(name="object overlap", unit="fraction", better="higher"),
    Measure(name="PSNR to true edit", unit="dB", better="higher"),
    Measure(name="warp error", unit="1e-3", better="lower", average="median"),
    Measure(name="warp error if successful", unit="1e-3", better="lower", average="median"),
    Measure(name="warp error over true edit", unit="log2", better="lower"),
    Measure(name="warp error over source", unit="1e-3", better="lower", average="median"),
    Measure(name="CLIP consistency", unit="", better="higher"),
    Measure(name="CLIP frame accuracy", unit="fraction", better="higher"),
    Measure(name="CLIP text alignment", unit="", better="higher"),
    Measure(name="LPIPS to source", unit=""),
)
_SAME_FLOW: Final = 0.01
"""Pixels by which the flows of one layer may differ before and after the edit."""


_MOST_PRESERVATION: Final = 60.0
"""dB beyond which frames look unchanged: a quarter of a step of 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What the checker finds in each frame, boolean arrays (frame,)."""

    edited: Times
    """The requested attribute is there, and the frame is not a mix of source and edit."""
    kept: Times
    """Everything else that the checker can read is as it was."""
    edit_is_readable: Times
    """The checker reads the requested attribute correctly from the true edit; other frames do not count."""
    rest_is_readable: Times
    """The same for anything else."""

    @property
    def successful(self) -> Times:
        """Frames that count, and have a successful edit."""
        found: Times = self.edited & self.edit_is_readable
        return found

    @property
    def success(self) -> float:
        """Fraction of frames with a successful edit."""
        return _fraction(self.edited, self.edit_is_readable)

    @property
    def rest_kept(self) -> float:
        """Fraction of frames in which nothing else has changed."""
        return _fraction(self.kept, self.rest_is_readable)

    def passing(self, where: Times | None = None) -> float:
        """Return the fraction of frames that pass everything, of all or of the chosen ones."""
        counted = self.edit_is_readable if where is None else self.edit_is_readable & where
        return _fraction(self.edited & self.kept, counted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A perfect edit, at the keyframes and the model's size."""

    frames: Frames
    untouched: Masks
    """(keyframe, height, width): pixels that the edit must not change."""
    shots: tuple[TrueShot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueShot:
    """One shot of a perfect edit; the first of its objects is the edited one."""

    frames: slice
    masks: Masks
    """(object, keyframe, height, width), after the edit."""
    before: Masks
    """The mask of the edited object before the edit, (keyframe, height, width)."""
    expected: tuple[Mapping[str, str], ...]
    """The attributes to read inside each object's mask; those of the first object include the background's."""
    readable: tuple[Mapping[str, Times], ...]
    """The frames in which the checker reads each attribute correctly from the perfect edit; others do not count."""


class EditScorer:
    """The metrics of edits of one clip."""

    def __init__(self, context: KeyframeContext) -> None:
        self.context, self.clip = context, context.clip
        self.truth = lru_cache(maxsize=None)(self._truth)
        self.motion = lru_cache(maxsize=None)(self._motion)

    def scores(self, edit: int, frames: Frames) -> dict[str, float]:
        """Measure edited keyframes, (keyframe, height, width, 3); metrics without a value on this clip are left out."""
        found = self._network_scores(edit, frames)
        truth, checks = self.truth(edit), self.checks(edit, frames)
        successful = None if checks is None else checks.successful
        found |= self._warp_errors(edit, frames, successful=successful)
        if truth is not None and checks is not None:
            kind = self.clip.edits[edit].kind
            found |= {
                "frames that pass everything": checks.passing(),
                "edit success": checks.success,
                "rest kept": checks.rest_kept,
                "preservation": self._preservation(frames, truth.untouched, np.ones(len(frames), np.bool_)),
                "preservation if successful": self._preservation(frames, truth.untouched, checks.successful),
                "object overlap": _overlap(frames, truth),
            }
            if kind == "colour":
                found["colour success"] = checks.success
            if kind in UNIQUE_KINDS:
                found["PSNR to true edit"] = mean_psnr(frames, truth.frames)
        elif self.clip.mask is not None:
            inside = fit_masks(self.clip.mask[list(self.context.keyframes)], self.context.size)
            untouched = outside_objects(np.expand_dims(inside, 1))
            found["preservation"] = self._preservation(frames, untouched, np.ones(len(frames), np.bool_))
        return finite_scores(found)

    def checks(self, edit: int, frames: Frames) -> Checks | None:
        """Check each frame; None on real clips: their true edit is not known."""
        truth = self.truth(edit)
        if truth is None:
            return None
        name = EDITED_ATTRIBUTE[self.clip.edits[edit].kind]
        shots = [_check_shot(frames[shot.frames], shot, name=name) for shot in truth.shots]
        edited, kept, edit_is_readable, rest_is_readable = (np.concatenate(each) for each in zip(*shots, strict=True))
        return Checks(
            edited=edited & ~mixed_frames(frames, self.context.frames, truth.frames),
            kept=kept,
            edit_is_readable=edit_is_readable,
            rest_is_readable=rest_is_readable,
        )

    def reference(self, edit: int) -> Frames:
        """Return the true edit if it is known, else the source."""
        truth = self.truth(edit)
        return self.context.frames if truth is None else truth.frames

    def _preservation(self, frames: Frames, untouched: Masks, where: Times) -> float:
        if not where.any():
            return np.nan
        found = preservation(frames[where], self.context.frames[where], untouched[where])
        return min(found, _MOST_PRESERVATION) if found == found else found

    def _truth(self, edit: int) -> Truth | None:
        requested, source = self.clip.edits[edit], self.clip.scene
        if requested.truth is None or source is None:
            return None
        frames, before = self.context.fit(requested.truth.frames), self._masks(source)
        after, shots = self._masks(requested.truth), []
        for place, spec in zip(self._shots(), requested.truth.shots, strict=True):
            masks = after[: len(spec.objects), place]
            expected = tuple(_attributes(spec, index) for index in range(len(spec.objects)))
            readable = tuple(attribute_hits(frames[place], *pair) for pair in zip(masks, expected, strict=True))
            shots.append(
                TrueShot(frames=place, masks=masks, before=before[0, place], expected=expected, readable=readable)
            )
        untouched = _untouched(requested, before=before, after=after)
        return Truth(frames=frames, untouched=untouched, shots=tuple(shots))

    def _masks(self, scene: Scene) -> Masks:
        """Return object masks, (object, keyframe, height, width), at the model's size."""
        masks = scene.object_masks[list(self.context.keyframes)].swapaxes(0, 1)
        return np.stack([fit_masks(each, self.context.size) for each in masks])

    def _warp_errors(self, edit: int, frames: Frames, *, successful: Times | None) -> dict[str, float]:
        """Compute errors of warping each keyframe to the next one, alone and next to those of source and true edit."""
        if len(frames) < 2:
            return {}
        errors = self._pair_errors(edit, frames)
        source, truth = (self._pair_errors(edit, clip) for clip in (self.context.frames, self.reference(edit)))
        found = {"warp error": mean(errors), "warp error over source": mean(errors) - mean(source)}
        if successful is not None:
            found["warp error if successful"] = mean(errors[successful[:-1] & successful[1:]])
            found["warp error over true edit"] = _log_ratio(mean(errors), mean(truth)) / 1e3
        return {name: 1e3 * value for name, value in found.items()}

    def _pair_errors(self, edit: int, frames: Frames) -> NDArray[np.float64]:
        errors = warp_error(to_images(frames), *self.motion(edit))
        return errors.double().numpy()

    def _motion(self, edit: int) -> tuple[Tensor, Tensor]:
        """Return flow from each keyframe to the one before, and where it is valid: nowhere across a cut."""
        scene, truth = self.clip.scene, self.clip.edits[edit].truth
        pairs = list(pairwise(range(len(self.context.keyframes))))
        if scene is not None and truth is not None:
            frames = [(self.context.keyframes[b], self.context.keyframes[a]) for a, b in pairs]
            flow, valid = _common_flow(scene, truth, frames)
        else:
            flow, valid = self._estimated_motion(pairs)
        small = fit_masks(valid.numpy(), self.context.size)
        return resize_flow(flow, self.context.size), torch.from_numpy(small)

    def _estimated_motion(self, pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        flows = self.context.flows()
        places = [flows.pairs.index(pair) for pair in pairs]
        to_prev, to_cur = flows.to_prev[places], flows.to_cur[places]
        within = torch.tensor([self.context.keyframes[cur] not in self.clip.cuts for _, cur in pairs])
        return to_prev, ~occlusion_mask(to_prev, to_cur) & within[:, None, None]

    def _network_scores(self, edit: int, frames: Frames) -> dict[str, float]:
        """Compute LPIPS and CLIP metrics, as far as their networks are there."""
        resources, found = self.context.resources, {}
        if resources.lpips_weights is not None:
            lpips = load_lpips(resources.lpips_weights, device=resources.device)
            pair = [to_images(each).to(resources.device) for each in (frames, self.context.frames)]
            found["LPIPS to source"] = float(lpips(*pair).mean())
        if resources.clip_model is not None:
            model, processor = load_clip_model(resources.clip_model, device=resources.device)
            embeddings = embed_frames(model, processor, frames)
            texts = [embed_text(model, processor, text) for text in (self.clip.edits[edit].prompt, self.clip.caption)]
            found["CLIP consistency"] = mean(temporal_consistency(embeddings[shot]) for shot in self._shots())
            found["CLIP frame accuracy"] = frame_accuracy(embeddings, *texts)
            found["CLIP text alignment"] = text_alignment(embeddings, texts[0])
        return found

    def _shots(self) -> list[slice]:
        """Return the keyframe indices of each shot."""
        cuts = [self.context.keyframes.index(cut) for cut in self.clip.cuts]
        return [slice(start, stop) for start, stop in pairwise((0, *cuts, len(self.context.keyframes)))]


def _attributes(spec: SceneSpec, index: int) -> dict[str, str]:
    """Return the attributes of an object; with the first one, those of the background."""
    item, ground = spec.objects[index], spec.background
    found = {"colour": str(item.colour), "shape": str(item.shape), "texture": str(item.texture)}
    return found | ({} if index else {"background_colour": ground.colour, "background_texture": ground.texture})


def _untouched(edit: Edit, *, before: Masks, after: Masks) -> Masks:
    """Return pixels far from the edited object, or far inside the objects if the background is edited."""
    if edit.kind.startswith("background"):
        ground = ~(before.any(axis=0) | after.any(axis=0))
        return outside_objects(np.expand_dims(ground, 1))
    return outside_objects(np.stack([before[0], after[0]], axis=1))


def _common_flow(source: Scene, truth: Scene, pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Return the true flow, and as valid the pixels that show the same layer before and after the edit."""
    flows, valid = [], []
    for here, there in pairs:
        (flow, occluded), (source_flow, source_occluded) = (
            match_frames(scene, here, there) for scene in (truth, source)
        )
        flows.append(torch.from_numpy(flow))
        same: Masks = np.abs(flow - source_flow).max(axis=0) < _SAME_FLOW
        valid.append(torch.from_numpy(same & ~occluded & ~source_occluded))
    return torch.stack(flows), torch.stack(valid)


def _check_shot(frames: Frames, shot: TrueShot, *, name: str) -> tuple[Times, Times, Times, Times]:
    """Return the arrays of `Checks` of one shot, without the check for mixes.

    Args:
        frames: the edited frames of the shot.
        shot: the shot after a perfect edit.
        name: the edited attribute, of the first object or the background.
    """
    hits = [attribute_hits(frames, *pair) for pair in zip(shot.masks, shot.expected, strict=True)]
    if name == "shape":
        # An object that keeps its shape, or turns, has kept its colour even if it covers little of the new shape
        colour = {"colour": shot.expected[0]["colour"]}
        hits[0]["colour"] |= attribute_hits(frames, shot.before, colour)["colour"]
    rest = [
        (found, readable[other])
        for index, (item, readable) in enumerate(zip(hits, shot.readable, strict=True))
        for other, found in item.items()
        if index > 0 or other != name
    ]
    kept = np.all([found | ~readable for found, readable in rest], axis=0)
    return hits[0][name], kept, shot.readable[0][name], np.any([readable for _, readable in rest], axis=0)


def _overlap(frames: Frames, truth: Truth) -> float:
    """Compute the mean IoU of the edited object over the shots, each by its number of frames."""
    return mean(
        overlap
        for shot in truth.shots
        for overlap in [
            object_overlap(
                frames[shot.frames],
                shot.masks[0],
                colour=shot.expected[0]["colour"],
                background=shot.expected[0]["background_colour"],
            )
        ]
        * len(frames[shot.frames])
    )


def _fraction(found: Times, counted: Times) -> float:
    return mean(found[counted].astype(float))


def _log_ratio(error: float, true_error: float) -> float:
    """Return log2 of the ratio; NaN if one is 0, as of a still clip."""
    return log2(error / true_error) if error > 0 and true_error > 0 else nan
