"""Every frame between two edited keyframes, on a torch device: the twin of `wave_ops.propagation.interval`.

Both directions are one batch: step i paints the i-th frame after the earlier keyframe and the i-th before the later one
together, so that they share every launch. What enters and leaves the device does so once per interval; within, the host
waits only to learn how many patches are left to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from wave_ops.masks import occlusion_mask
from wave_ops.propagation.on_device.detail import restore_detail
from wave_ops.propagation.on_device.guides import (
    carry_matches,
    edge_guide,
    fill_holes,
    own_positions,
    position_guide,
)
from wave_ops.propagation.on_device.mixing import (
    blend,
    blend_weights,
    fuse_gradients,
    lab_to_rgb,
    rgb_to_lab,
    selected_gradients,
)
from wave_ops.propagation.on_device.synthesis import Exemplars, Synthesis, synthesise
from wave_ops.propagation.selection import selection_weight
from wave_ops.propagation.settings import PropagationSettings
from wave_ops.warp import backward_warp

__all__ = ["propagate_on_device"]

Frames = UInt8[np.ndarray, "frame height width 3"]
Flows = Float[np.ndarray, "pair 2 height width"]
Images = Float[Tensor, "frame 3 height width"]
Batch = Float[Tensor, "batch 3 height width"]
Map = Float[Tensor, "height width"]


def propagate_on_device(
    frames: Frames,
    keyframes: Sequence[UInt8[np.ndarray, "height width 3"]],
    flows: tuple[Flows, Flows],
    *,
    settings: PropagationSettings,
    device: torch.device,
    advance: Callable[[], None],
) -> UInt8[np.ndarray, "made height width 3"]:
    """Return the frames after the first keyframe and, where there is one, before the last.

    Args:
        frames: the interval's source frames, its keyframes included.
        keyframes: the edited first frame and, where there is one, the edited last.
        flows: to the frame before on the grid of each frame but the first, and the opposite direction.
        settings: constants.
        device: where to compute.
        advance: called after each candidate and each fused frame.
    """
    source, edited = _images(frames, device), _images(np.stack(keyframes), device)
    to_prev, to_cur = (torch.from_numpy(flow).to(device) for flow in flows)
    painted = []
    for step in _paint(source, edited, (to_prev, to_cur), settings=settings):
        painted.append(step)
        for _ in keyframes:
            advance()
    if len(keyframes) == 1:
        made = [step.image[0] for step in painted]
    else:
        made = []
        for frame in _fused(painted, (to_prev, to_cur), settings=settings):
            made.append(frame)
            advance()
    rounded = torch.stack(made).round_().clamp_(0, 255).to(torch.uint8)
    result: UInt8[np.ndarray, "made height width 3"] = rounded.movedim(1, -1).contiguous().cpu().numpy()
    return result


def _paint(
    source: Images, edited: Batch, flows: tuple[Tensor, Tensor], *, settings: PropagationSettings
) -> Iterator[Synthesis]:
    """Yield step 1, 2, ... outward from the keyframes, each led by the one before."""
    to_prev, to_cur = flows
    # For the later keyframe all is turned round: frames, and what "back" means.
    ways = (source, to_prev, to_cur), (source.flip(0), to_cur.flip(0), to_prev.flip(0))
    frames, backs, ons = (torch.stack(parts, dim=1) for parts in zip(*ways[: len(edited)], strict=True))
    image = edited
    positions = matches = own_positions(len(edited), (source.shape[2], source.shape[3]), source.device)
    guides = (frames[0], edge_guide(frames[0]), edited, position_guide(positions))
    exemplars = Exemplars.build(edited, guides, settings=settings)
    for frame, back, on in zip(frames[1 : len(source) + 1 - len(edited)], backs, ons, strict=False):
        holes = occlusion_mask(back, on)
        positions = fill_holes(backward_warp(positions, back), holes)
        temporal = fill_holes(backward_warp(image, back), holes)
        guides = (frame, edge_guide(frame), temporal, position_guide(positions))
        result = synthesise(exemplars, guides, starts=(positions, carry_matches(matches, back)))
        image, matches = result.image, result.matches
        if settings.restore_detail:
            image = restore_detail(image, seen=result.seen, frame=frame)
        yield replace(result, image=image)


def _fused(
    painted: Sequence[Synthesis], flows: tuple[Tensor, Tensor], *, settings: PropagationSettings
) -> Iterator[Float[Tensor, "3 height width"]]:
    """Yield each frame between the keyframes: selected, blended, fused."""
    to_prev, to_cur = flows
    chosen: Bool[Tensor, "height width"] | None = None
    # The later keyframe's come in backward order and are turned round, so that each error stays with its own frame.
    for index, (early, late) in enumerate(zip(painted, reversed(painted), strict=True), start=1):
        weight = selection_weight(index, len(painted) + 1, kind=settings.selection_weight)
        first, last = early.error[0], late.error[1]
        selected = weight * first >= (1 - weight) * last
        if chosen is not None:
            selected |= _carried(chosen, to_prev[index - 1], to_cur[index - 1])
        chosen = selected
        share = weight if settings.blend_weight == "published" else blend_weights(first, last, weight=weight)
        yield _fuse(early.image[0], late.image[1], chosen, share=share, settings=settings)


def _carried(chosen: Bool[Tensor, "height width"], back: Tensor, on: Tensor) -> Bool[Tensor, "height width"]:
    """Return the selection of the frame before as the flow carries it; what has no match there starts anew."""
    moved = backward_warp(chosen[None, None].float(), back[None], mode="nearest")[0, 0] > 0
    return moved & ~occlusion_mask(back[None], on[None])[0]


def _fuse(
    early: Float[Tensor, "3 height width"],
    late: Float[Tensor, "3 height width"],
    chosen: Bool[Tensor, "height width"],
    *,
    share: float | Map,
    settings: PropagationSettings,
) -> Float[Tensor, "3 height width"]:
    """Blend two candidates in Lab and give the blend the gradients of the selected one."""
    lab_early, lab_late = rgb_to_lab(early), rgb_to_lab(late)
    mix = blend(lab_early, lab_late, torch.where(chosen, lab_late, lab_early), weight=share)
    gradients = selected_gradients(lab_early, lab_late, chosen)
    return lab_to_rgb(fuse_gradients(mix, *gradients, weights=settings.gradient_weights))


def _images(frames: UInt8[np.ndarray, "frame height width 3"], device: torch.device) -> Images:
    return torch.from_numpy(np.ascontiguousarray(frames)).to(device).movedim(-1, 1).float().contiguous()
