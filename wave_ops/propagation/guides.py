"""Guide images for patch synthesis, and values that follow the optical flow.

Convention:
    Images are float32 (batch, 3, height, width) in 8-bit units. A flow is (batch, 2, height, width), x then y, in
    pixels, on the grid of the frame to be painted, and points to the frame painted before it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wave_ops.propagation.pyramid import enlarge, shrink
from wave_ops.warp import backward_warp, flow_positions

__all__ = [
    "Guides",
    "edge_guide",
    "inpaint",
    "mirror_pad",
    "pixel_grid",
    "position_guide",
    "source_guides",
    "target_guides",
    "warp_matches",
]

Images = Float[Tensor, "batch 3 height width"]
Positions = Float[Tensor, "batch 2 height width"]


class Guides(NamedTuple):
    """The four guides of a batch of frames, each float32 (batch, 3, height, width) in 8-bit units."""

    colour: Tensor
    edges: Tensor
    temporal: Tensor
    position: Tensor


def source_guides(frames: Images, style: Images) -> Guides:
    """Return the guides of keyframes: the temporal guide is the edited keyframe, the positions are the pixel grid."""
    positions = pixel_grid((frames.shape[2], frames.shape[3]), batch=len(frames), device=frames.device)
    return target_guides(frames, style, positions)


def target_guides(frames: Images, temporal: Images, positions: Positions) -> Guides:
    """Return the guides of frames to be painted.

    Args:
        frames: the source frames.
        temporal: the frames painted before, warped to these.
        positions: the keyframe's coordinates, x then y in pixels, warped to these frames.
    """
    return Guides(frames, edge_guide(frames), temporal, position_guide(positions))


def edge_guide(frames: Images) -> Images:
    """Return how much brighter each pixel is than its four neighbours, per channel, clipped to 0..255.

    Source: the 4-neighbour Laplacian stored as an 8-bit image, as WAVE's authors ran it. The border is mirrored.
    """
    padded = mirror_pad(frames, 1)
    above, below = padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]
    left, right = padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]
    return (4 * frames).sub_(above).sub_(below).sub_(left).sub_(right).clamp_(0, 255)


def mirror_pad(
    images: Float[Tensor, "batch channel height width"], margin: int
) -> Float[Tensor, "batch channel padded_height padded_width"]:
    """Extend images on every side by their mirror image about the outermost pixels, which are not repeated.

    Unlike `torch.nn.functional.pad` the margin may exceed the image: a row of one pixel is that pixel throughout.
    """
    for dim in (2, 3):
        last = images.shape[dim] - 1
        index = torch.arange(-margin, last + margin + 1, device=images.device)
        index = last - (last - index.remainder(max(2 * last, 1))).abs()
        images = images.index_select(dim, index)
    return images


def pixel_grid(size: tuple[int, int], *, batch: int = 1, device: torch.device | str = "cpu") -> Positions:
    """Return the coordinates of each pixel, x then y, float32, (batch, 2, *size)."""
    return flow_positions(torch.zeros(batch, 2, *size, device=device))


def position_guide(positions: Positions) -> Images:
    """Return coordinates as images: ramps of 0..255 along x and y and an empty third channel."""
    height, width = positions.shape[2:]
    x, y = positions.unbind(1)
    return torch.stack((x * (255 / max(width - 1, 1)), y * (255 / max(height - 1, 1)), torch.zeros_like(x)), dim=1)


def warp_matches(matches: Positions, flow: Positions) -> Positions:
    """Return the matches of the frame painted before, warped by the flow without interpolation.

    Neighbouring matches may be far apart, and their mean would match neither. So each pixel takes the match of the
    pixel nearest to where its flow points, plus the remaining fraction of a pixel.
    """
    grid = pixel_grid((flow.shape[2], flow.shape[3]), batch=len(flow), device=flow.device)
    nearest, warped = backward_warp(torch.cat((grid, matches), dim=1), flow, mode="nearest").split(2, dim=1)
    moved: Tensor = warped + (grid + flow - nearest)
    return moved


def inpaint(
    values: Float[Tensor, "batch channel height width"], holes: Bool[Tensor, "batch height width"]
) -> Float[Tensor, "batch channel height width"]:
    """Return the values with holes filled smoothly from their surroundings.

    Source: pull-push (Gortler et al. 1996): means of the known values on ever coarser grids, read back from the finest
    grid with a known value. Known values stay as they are; an image without known values is returned unchanged.
    """
    known = (~holes).to(values.dtype)[:, None]
    filled = _pull_push(values * known, known)
    fillable = holes & ~holes.flatten(1).all(dim=1)[:, None, None]
    return torch.where(fillable[:, None], filled, values)


def _pull_push(
    sums: Float[Tensor, "batch channel height width"], known: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, "batch channel height width"]:
    """Return sums / known, filled from the grid of half the size where known is 0."""
    height, width = known.shape[2:]
    present = known > 0
    means = sums / known.where(present, 1)
    # Reading the mask would make a GPU wait, so there the grids always shrink to a single pixel.
    if max(height, width) == 1 or (known.device.type == "cpu" and bool(present.all())):
        return means
    half = ((height + 1) // 2, (width + 1) // 2)
    presence = present.to(sums.dtype)
    coarse = _pull_push(shrink(means * presence, half), shrink(presence, half))
    return torch.where(present, means, enlarge(coarse, (height, width)))
