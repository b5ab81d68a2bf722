"""How good edited keyframes are: on scenes against the truth, on real clips by what can be measured without it."""

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

from tasks.evaluation.clips.scene_clips import ASKED
from tasks.evaluation.comparison import Edit, Measure
from tasks.evaluation.comparisons.keyframes import MOST_PSNR, Bench, fit_masks, mean_psnr
from tasks.evaluation.comparisons.motion import known, mean
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

__all__ = ["EDIT_MEASURES", "Judge"]

Frames = NDArray[np.uint8]
Masks = NDArray[np.bool_]

EDIT_MEASURES: Final = (
    Measure(name="edit success", unit="share", better="higher", bar=0.85),
    Measure(name="colour success", unit="share", better="higher", bar=0.95),
    Measure(name="rest kept", unit="share", better="higher", bar=0.80),
    Measure(name="preservation", unit="dB", better="higher", bar=26.0),
    Measure(name="object overlap", unit="share", better="higher"),
    Measure(name="PSNR to true edit", unit="dB", better="higher"),
    Measure(name="warp error", unit="1e-3", better="lower"),
    Measure(name="warp error over source", unit="1e-3", better="lower"),
    Measure(name="CLIP consistency", unit="", better="higher"),
    Measure(name="CLIP frame accuracy", unit="share", better="higher"),
    Measure(name="CLIP text alignment", unit="", better="higher"),
    Measure(name="LPIPS to source", unit=""),
)
_SAME_FLOW: Final = 0.01
"""Pixels by which two flows may differ and still be of one layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Truth:
    """A perfect edit, at the keyframes and the model's size."""

    frames: Frames
    masks: tuple[Masks, ...]
    """Of each object after the edit."""
    wanted: tuple[Mapping[str, str], ...]
    """What is to be read inside each object's mask; the first one's has the background's attributes too."""
    readable: tuple[Mapping[str, Masks], ...]
    """Where the checker reads each of these right from the perfect edit, (frame): nothing is asked elsewhere."""
    untouched: Masks
    """Where the edit has no business."""


class Judge:
    """What edits of one clip are measured by."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.clip = bench, bench.clip
        self.truth = lru_cache(maxsize=None)(self._truth)
        self.motion = lru_cache(maxsize=None)(self._motion)

    def figures(self, edit: int, frames: Frames) -> dict[str, float]:
        """Measure edited keyframes; what cannot be measured on this clip is left out."""
        truth = self.truth(edit)
        found = self._steadiness(edit, frames) | self._likeness(edit, frames)
        if truth is not None:
            found |= _rightness(self.clip.edits[edit].kind, frames, truth)
            found["PSNR to true edit"] = mean_psnr(frames, truth.frames)
            found["preservation"] = np.minimum(preservation(frames, self.bench.frames, truth.untouched), MOST_PSNR)
        return known(found)

    def reference(self, edit: int) -> Frames:
        """The true edit where it is known, else the source."""
        truth = self.truth(edit)
        return self.bench.frames if truth is None else truth.frames

    def _truth(self, edit: int) -> _Truth | None:
        asked, source = self.clip.edits[edit], self.clip.scene
        if asked.truth is None or source is None:
            return None
        after, frames = self._masks(asked.truth), self.bench.fit(asked.truth.frames)
        wanted = (asked.wanted, *_others(asked.truth))
        return _Truth(
            frames=frames,
            masks=tuple(after),
            wanted=wanted,
            readable=tuple(attribute_hits(frames, *pair) for pair in zip(after, wanted, strict=True)),
            untouched=_untouched(asked, before=self._masks(source), after=after),
        )

    def _masks(self, scene: Scene) -> Masks:
        """(object, keyframe, height, width) at the model's size."""
        masks = scene.object_masks[list(self.bench.keyframes)].swapaxes(0, 1)
        return np.stack([fit_masks(each, self.bench.size) for each in masks])

    def _steadiness(self, edit: int, frames: Frames) -> dict[str, float]:
        """The error that is left when each keyframe is warped to the next one, beside the source's own."""
        if len(frames) < 2:
            return {}
        motion = self.motion(edit)
        error, least = (
            1e3 * mean(warp_error(to_images(each), *motion).tolist()) for each in (frames, self.bench.frames)
        )
        return {"warp error": error, "warp error over source": error - least}

    def _motion(self, edit: int) -> tuple[Tensor, Tensor]:
        """Flow from each keyframe to the one before, and where it holds: nowhere across a cut."""
        scene, truth = self.clip.scene, self.clip.edits[edit].truth
        slots = list(pairwise(range(len(self.bench.keyframes))))
        if scene is not None and truth is not None:
            pairs = [(self.bench.keyframes[b], self.bench.keyframes[a]) for a, b in slots]
            flow, valid = _common_flow(scene, truth, pairs)
        else:
            flow, valid = self._estimated_motion(slots)
        small = fit_masks(valid.numpy(), self.bench.size)
        return resize_flow(flow, self.bench.size), torch.from_numpy(small)

    def _estimated_motion(self, slots: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        flows = self.bench.flows()
        places = [flows.pairs.index(pair) for pair in slots]
        to_prev, to_cur = flows.to_prev[places], flows.to_cur[places]
        within = torch.tensor([self.bench.keyframes[cur] not in self.clip.cuts for _, cur in slots])
        return to_prev, ~occlusion_mask(to_prev, to_cur) & within[:, None, None]

    def _likeness(self, edit: int, frames: Frames) -> dict[str, float]:
        """What trained networks say, where there are any."""
        parts, found = self.bench.resources, {}
        if parts.lpips_weights is not None:
            lpips = load_lpips(parts.lpips_weights, device=parts.device)
            pair = [to_images(each).to(parts.device) for each in (frames, self.bench.frames)]
            found["LPIPS to source"] = float(lpips(*pair).mean())
        if parts.clip_model is not None:
            model, processor = load_clip_model(parts.clip_model, device=parts.device)
            seen = embed_frames(model, processor, frames)
            texts = [embed_text(model, processor, text) for text in (self.clip.edits[edit].prompt, self.clip.caption)]
            found["CLIP consistency"] = mean(temporal_consistency(seen[shot]) for shot in self._shots())
            found["CLIP frame accuracy"] = frame_accuracy(seen, *texts)
            found["CLIP text alignment"] = text_alignment(seen, texts[0])
        return found

    def _shots(self) -> list[slice]:
        """The keyframe slots of each shot."""
        cuts = [self.bench.keyframes.index(cut) for cut in self.clip.cuts]
        return [slice(start, stop) for start, stop in pairwise((0, *cuts, len(self.bench.keyframes)))]


def _others(scene: Scene) -> list[dict[str, str]]:
    return [{"colour": item.colour, "shape": item.shape} for item in scene.shots[0].objects[1:]]


def _untouched(edit: Edit, *, before: Masks, after: Masks) -> Masks:
    """Well away from the edited object, or well inside the objects where the background is edited."""
    if edit.kind.startswith("background"):
        ground = ~(before.any(axis=0) | after.any(axis=0))
        return outside_objects(np.expand_dims(ground, 1))
    return outside_objects(np.stack([before[0], after[0]], axis=1))


def _common_flow(source: Scene, truth: Scene, pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """The true flow where the same layer is seen before and after the edit, so that both clips move by it."""
    flows, valid = [], []
    for here, there in pairs:
        (flow, hidden), (other, behind) = (match_frames(scene, here, there) for scene in (truth, source))
        flows.append(torch.from_numpy(flow))
        same: Masks = np.abs(flow - other).max(axis=0) < _SAME_FLOW
        valid.append(torch.from_numpy(same & ~hidden & ~behind))
    return torch.stack(flows), torch.stack(valid)


def _rightness(kind: str, frames: Frames, truth: _Truth) -> dict[str, float]:
    """What the checker reads: the asked attribute, everything else, and where the object is."""
    hits = [attribute_hits(frames, *pair) for pair in zip(truth.masks, truth.wanted, strict=True)]
    asked, wanted = ASKED[kind], truth.wanted[0]
    success = mean(hits[0][asked][truth.readable[0][asked]].astype(float))
    rest = [
        (found, readable[name])
        for item, readable in zip(hits, truth.readable, strict=True)
        for name, found in item.items()
        if not (item is hits[0] and name == asked)
    ]
    kept = np.all([found | ~readable for found, readable in rest], axis=0)
    known_of = np.any([readable for _, readable in rest], axis=0)
    overlap = object_overlap(frames, truth.masks[0], colour=wanted["colour"], background=wanted["background_colour"])
    return {
        "edit success": success,
        **({"colour success": success} if kind == "colour" else {}),
        "rest kept": mean(kept[known_of].astype(float)),
        "object overlap": overlap,
    }
