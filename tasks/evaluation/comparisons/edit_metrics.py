"""Metrics of edited keyframes: against the true edit on scenes, without it on real clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.evaluation.clips.clip import Edit
from tasks.evaluation.clips.scene_clips import EDITED_ATTRIBUTE
from tasks.evaluation.comparisons.comparison import Measure
from tasks.evaluation.comparisons.keyframes import MOST_PSNR, KeyframeContext, fit_masks, mean_psnr
from tasks.evaluation.comparisons.motion import finite_scores, mean
from tasks.models.metric_networks import load_clip_model, load_lpips
from wave_ops.masks import occlusion_mask
from wave_ops.metrics import (
    attribute_hits,
    embed_frames,
    embed_text,
    frame_accuracy,
    object_overlap,
    outside_objects,
    preservation,
    temporal_consistency,
    text_alignment,
    warp_error,
)
from wave_ops.resize import to_images
from wave_ops.scenes.rendering import Scene, match_frames
from wave_ops.warp import resize_flow

__all__ = ["EDIT_MEASURES", "EditScorer"]

Frames = NDArray[np.uint8]
Masks = NDArray[np.bool_]

EDIT_MEASURES: Final = (
    Measure(name="edit success", unit="fraction", better="higher", target=0.85),
    Measure(name="colour success", unit="fraction", better="higher", target=0.95),
    Measure(name="rest kept", unit="fraction", better="higher", target=0.80),
    Measure(name="preservation", unit="dB", better="higher", target=26.0),
    Measure(name="object overlap", unit="fraction", better="higher"),
    Measure(name="PSNR to true edit", unit="dB", better="higher"),
    Measure(name="warp error", unit="1e-3", better="lower"),
    Measure(name="warp error over source", unit="1e-3", better="lower"),
    Measure(name="CLIP consistency", unit="", better="higher"),
    Measure(name="CLIP frame accuracy", unit="fraction", better="higher"),
    Measure(name="CLIP text alignment", unit="", better="higher"),
    Measure(name="LPIPS to source", unit=""),
)
_SAME_FLOW: Final = 0.01
"""Pixels by which the flows of one layer may differ before and after the edit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Truth:
    """A perfect edit, at the keyframes and the model's size."""

    frames: Frames
    masks: tuple[Masks, ...]
    """Of each object after the edit."""
    expected: tuple[Mapping[str, str], ...]
    """The attributes to read inside each object's mask; those of the first object include the background's."""
    readable: tuple[Mapping[str, Masks], ...]
    """The frames in which the checker reads each attribute correctly from the perfect edit; others do not count."""
    untouched: Masks
    """(keyframe, height, width): pixels that the edit must not change."""


class EditScorer:
    """The metrics of edits of one clip."""

    def __init__(self, context: KeyframeContext) -> None:
        self.context, self.clip = context, context.clip
        self.truth = lru_cache(maxsize=None)(self._truth)
        self.motion = lru_cache(maxsize=None)(self._motion)

    def scores(self, edit: int, frames: Frames) -> dict[str, float]:
        """Measure edited keyframes, (keyframe, height, width, 3); metrics without a value on this clip are left out."""
        truth = self.truth(edit)
        found = self._warp_errors(edit, frames) | self._network_scores(edit, frames)
        if truth is not None:
            found |= _attribute_scores(self.clip.edits[edit].kind, frames, truth)
            found["PSNR to true edit"] = mean_psnr(frames, truth.frames)
            found["preservation"] = np.minimum(preservation(frames, self.context.frames, truth.untouched), MOST_PSNR)
        return finite_scores(found)

    def reference(self, edit: int) -> Frames:
        """Return the true edit if it is known, else the source."""
        truth = self.truth(edit)
        return self.context.frames if truth is None else truth.frames

    def _truth(self, edit: int) -> _Truth | None:
        requested, source = self.clip.edits[edit], self.clip.scene
        if requested.truth is None or source is None:
            return None
        after, frames = self._masks(requested.truth), self.context.fit(requested.truth.frames)
        expected = (requested.expected, *_other_attributes(requested.truth))
        return _Truth(
            frames=frames,
            masks=tuple(after),
            expected=expected,
            readable=tuple(attribute_hits(frames, *pair) for pair in zip(after, expected, strict=True)),
            untouched=_untouched(requested, before=self._masks(source), after=after),
        )

    def _masks(self, scene: Scene) -> Masks:
        """Return object masks, (object, keyframe, height, width), at the model's size."""
        masks = scene.object_masks[list(self.context.keyframes)].swapaxes(0, 1)
        return np.stack([fit_masks(each, self.context.size) for each in masks])

    def _warp_errors(self, edit: int, frames: Frames) -> dict[str, float]:
        """Compute the error of warping each keyframe to the next one, and its difference from the source's."""
        if len(frames) < 2:
            return {}
        motion = self.motion(edit)
        error, source_error = (
            1e3 * mean(warp_error(to_images(each), *motion).tolist()) for each in (frames, self.context.frames)
        )
        return {"warp error": error, "warp error over source": error - source_error}

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


def _other_attributes(scene: Scene) -> list[dict[str, str]]:
    return [{"colour": item.colour, "shape": item.shape} for item in scene.shots[0].objects[1:]]


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


def _attribute_scores(kind: str, frames: Frames, truth: _Truth) -> dict[str, float]:
    """Compute the fraction of frames with the requested attribute, with all others kept, and the object's IoU."""
    hits = [attribute_hits(frames, *pair) for pair in zip(truth.masks, truth.expected, strict=True)]
    edited, expected = EDITED_ATTRIBUTE[kind], truth.expected[0]
    colours = {"colour": expected["colour"], "background": expected["background_colour"]}
    success = mean(hits[0][edited][truth.readable[0][edited]].astype(float))
    rest = [
        (found, readable[name])
        for item, readable in zip(hits, truth.readable, strict=True)
        for name, found in item.items()
        if not (item is hits[0] and name == edited)
    ]
    kept = np.all([found | ~readable for found, readable in rest], axis=0)
    counted = np.any([readable for _, readable in rest], axis=0)
    overlap = object_overlap(frames, truth.masks[0], **colours)
    return {
        "edit success": success,
        **({"colour success": success} if kind == "colour" else {}),
        "rest kept": mean(kept[counted].astype(float)),
        "object overlap": overlap,
    }
