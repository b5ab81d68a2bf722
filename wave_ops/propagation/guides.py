"""What leads patch synthesis: guide images, and how they are carried along the flow.

Convention:
    Images are float32 (height, width, 3) in 8-bit units. A flow is (2, height, width), x then y, in pixels, on the
    grid of the frame being made and pointing to the frame before it in the order of synthesis.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from numpy.typing import NDArray

from wave_ops.masks import occlusion_mask
from wave_ops.warp import backward_warp

__all__ = [
    "Guides",
    "carry",
    "carry_matches",
    "edge_guide",
    "fill_holes",
    "flow_holes",
    "own_positions",
    "position_guide",
    "source_guides",
    "target_guides",
]

Image = Float32[np.ndarray, "height width 3"]
Positions = Float32[np.ndarray, "2 height width"]
Flow = Float32[np.ndarray, "2 height width"]

_NEIGHBOURS = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32)


class Guides(NamedTuple):
    """The four guides of one frame, all float32 (height, width, 3) in 8-bit units."""

    colour: NDArray[np.float32]
    edges: NDArray[np.float32]
    temporal: NDArray[np.float32]
    position: NDArray[np.float32]


def source_guides(frame: UInt8[np.ndarray, "height width 3"], style: Image) -> Guides:
    """Return the guides of a keyframe: its temporal guide is its edit, its positions are its own."""
    positions = own_positions(frame.shape[0], frame.shape[1])
    return Guides(frame.astype(np.float32), edge_guide(frame), style, position_guide(positions))


def target_guides(frame: UInt8[np.ndarray, "height width 3"], temporal: Image, positions: Positions) -> Guides:
    """Return the guides of a frame to be made; `temporal` and `positions` have been carried to it."""
    return Guides(frame.astype(np.float32), edge_guide(frame), temporal, position_guide(positions))


def edge_guide(frame: UInt8[np.ndarray, "height width 3"]) -> Image:
    """Return how much brighter each pixel is than its four neighbours, per channel, cut to 0..255.

    Source: the 4-neighbour Laplacian stored as 8-bit image, as WAVE's authors ran it.
    """
    edges = cv2.filter2D(frame.astype(np.float32), -1, _NEIGHBOURS, borderType=cv2.BORDER_REFLECT_101)
    clipped: NDArray[np.float32] = np.clip(edges, 0, 255)
    return clipped


def own_positions(height: int, width: int) -> Positions:
    """Return each pixel's own coordinates, x then y."""
    y, x = np.mgrid[:height, :width]
    return np.stack((x, y)).astype(np.float32)


def position_guide(positions: Positions) -> Image:
    """Return coordinates as an image: ramps of 0..255 along x and y and an empty third channel."""
    _, height, width = positions.shape
    guide = np.zeros((height, width, 3), np.float32)
    guide[..., 0] = positions[0] * (255 / max(width - 1, 1))
    guide[..., 1] = positions[1] * (255 / max(height - 1, 1))
    return guide


def carry(
    values: Float32[np.ndarray, "channel height width"], flow: Flow
) -> Float32[np.ndarray, "channel height width"]:
    """Return the values that the flow points to, bilinear, the border repeated."""
    moved = backward_warp(torch.from_numpy(values)[None], torch.from_numpy(flow)[None])
    carried: NDArray[np.float32] = moved[0].numpy()
    return carried


def carry_matches(matches: Positions, flow: Flow) -> Positions:
    """Return where the matches of the frame before lie for this one: the nearest pixel's, moved by what is left over.

    Matches jump from pixel to pixel, so a mean of two would match nothing.
    """
    _, height, width = flow.shape
    there = own_positions(height, width) + flow
    x = np.clip(np.rint(there[0]), 0, width - 1)
    y = np.clip(np.rint(there[1]), 0, height - 1)
    left_over = there - np.stack((x, y))
    carried: NDArray[np.float32] = matches[:, y.astype(np.intp), x.astype(np.intp)] + left_over
    return carried


def flow_holes(flow: Flow, back: Flow) -> Bool[np.ndarray, "height width"]:
    """Return True where the flow points to nothing that could be carried: occluded, or outside the frame."""
    holes: NDArray[np.bool_] = occlusion_mask(torch.from_numpy(flow)[None], torch.from_numpy(back)[None])[0].numpy()
    return holes


def fill_holes(
    values: Float32[np.ndarray, "channel height width"], holes: Bool[np.ndarray, "height width"]
) -> Float32[np.ndarray, "channel height width"]:
    """Return the values with the holes filled smoothly from their surroundings.

    Source: pull-push (Gortler et al. 1996): means of what is known on ever coarser grids, read back from the finest
    grid that knows anything. Known values stay as they are; where nothing is known the values are returned.
    """
    if not holes.any() or holes.all():
        return values
    known = (~holes).astype(np.float32)
    filled = _pull_push(np.moveaxis(values, 0, -1) * known[..., None], known)
    return np.where(holes, np.moveaxis(filled, -1, 0), values)


def _pull_push(
    sums: Float[np.ndarray, "height width channel"], known: Float[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width channel"]:
    """Return sums / known, filled from the half-sized grid where known is 0."""
    height, width = known.shape
    present = known > 0
    means = sums / np.where(present, known, 1)[..., None]
    if present.all():
        return means
    half = ((width + 1) // 2, (height + 1) // 2)
    coarse = _pull_push(
        np.atleast_3d(cv2.resize(means * present[..., None], half, interpolation=cv2.INTER_AREA)),
        cv2.resize(present.astype(np.float32), half, interpolation=cv2.INTER_AREA),
    )
    smooth = np.atleast_3d(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))
    return np.where(present[..., None], means, smooth)
