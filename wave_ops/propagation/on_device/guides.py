"""What leads patch synthesis, on a torch device: the twin of `wave_ops.propagation.guides`.

Convention:
    Images are float32 (batch, 3, height, width) in 8-bit units, flows (batch, 2, height, width), x then y, in pixels,
    on the grid of the frame being made and pointing to the frame before it in the order of synthesis.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wave_ops.propagation.on_device.synthesis import shrink
from wave_ops.warp import backward_warp, flow_positions

__all__ = ["carry_matches", "edge_guide", "fill_holes", "own_positions", "position_guide"]

Images = Float[Tensor, "batch 3 height width"]
Positions = Float[Tensor, "batch 2 height width"]


def edge_guide(frames: Images) -> Images:
    """Return how much brighter each pixel is than its four neighbours, per channel, cut to 0..255."""
    edges = 4 * frames
    for dim in (2, 3):
        last = frames.shape[dim] - 1
        index = torch.arange(last + 1, device=frames.device)
        # Beyond the border lies what is before it.
        before, after = (index - 1).abs().clamp_(max=last), (last - (last - index - 1).abs()).clamp_(min=0)
        edges = edges - frames.index_select(dim, before) - frames.index_select(dim, after)
    return edges.clamp_(0, 255)


def own_positions(batch: int, size: tuple[int, int], device: torch.device) -> Positions:
    """Return each pixel's own coordinates, x then y."""
    return flow_positions(torch.zeros(batch, 2, *size, device=device))


def position_guide(positions: Positions) -> Images:
    """Return coordinates as images: ramps of 0..255 along x and y and an empty third channel."""
    height, width = positions.shape[2:]
    x, y = positions.unbind(1)
    return torch.stack((x * (255 / max(width - 1, 1)), y * (255 / max(height - 1, 1)), torch.zeros_like(x)), dim=1)


def carry_matches(matches: Positions, flow: Positions) -> Positions:
    """Return where the matches of the frame before lie for this one: the nearest pixel's, and what is left over."""
    nearest = backward_warp(flow_positions(torch.zeros_like(flow)), flow, mode="nearest")
    return backward_warp(matches, flow, mode="nearest") + (flow_positions(flow) - nearest)


def fill_holes(
    values: Float[Tensor, "batch channel height width"], holes: Bool[Tensor, "batch height width"]
) -> Float[Tensor, "batch channel height width"]:
    """Return the values with the holes filled smoothly from their surroundings (pull-push).

    Where nothing at all is known the values are returned.
    """
    known = (~holes).to(values.dtype)[:, None]
    filled = _pull_push(values * known, known)
    fillable = holes & ~holes.all(dim=2, keepdim=True).all(dim=1, keepdim=True)
    return torch.where(fillable[:, None], filled, values)


def _pull_push(
    sums: Float[Tensor, "batch channel height width"], known: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, "batch channel height width"]:
    """Return sums / known, filled from the half-sized grid where known is 0."""
    height, width = known.shape[2:]
    present = known > 0
    means = sums / known.where(present, 1)
    # Down to a single pixel, always: to ask whether all is known already would make the device wait.
    if max(height, width) == 1:
        return means
    half = ((height + 1) // 2, (width + 1) // 2)
    presence = present.to(sums.dtype)
    coarse = _pull_push(shrink(means * presence, half), shrink(presence, half))
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return torch.where(present, means, smooth)
