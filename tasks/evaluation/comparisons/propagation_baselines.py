"""Simple methods to fill the frames between two edited keyframes, as baselines of the full method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree

from wave_ops.propagation import KeyframeInterval, propagate_interval
from wave_ops.warp import backward_warp, flow_positions

__all__ = ["BASELINES", "warm_up"]

Frames = NDArray[np.uint8]

_CELL_BITS: Final = 2
"""Colours that differ in their lowest bits alone are mapped alike."""


def nearest_keyframe(interval: KeyframeInterval) -> Frames:
    """Repeat the keyframe that is nearer in time; in the middle, the earlier one."""
    return np.where(interval.time_fractions > 0.5, interval.last, interval.first)


def cross_fade(interval: KeyframeInterval) -> Frames:
    """Mix both keyframes by time, without warping."""
    ends = interval.first.astype(np.float32)[None], interval.last.astype(np.float32)[None]
    return _mixed(*ends, interval.time_fractions)


def flow_warp(interval: KeyframeInterval) -> Frames:
    """Warp the nearer keyframe: positions are chained from frame to frame, and colours sampled once."""
    early, late = _warped_both(interval)
    return np.where(interval.time_fractions > 0.5, _rounded(late), _rounded(early))


def two_way_warp(interval: KeyframeInterval) -> Frames:
    """Mix both keyframes by time, each warped along the flow."""
    early, late = _warped_both(interval)
    return _mixed(early, late, interval.time_fractions)


def colour_map(interval: KeyframeInterval) -> Frames:
    """Map the colours of each frame as both edits map those of their keyframes; neither place nor motion counts.

    A colour that no keyframe has is mapped like the nearest one that has been seen.
    """
    ends = np.stack([interval.frames[0], interval.frames[-1]]).reshape(-1, 3)
    edited = np.stack([interval.first, interval.last]).reshape(-1, 3)
    cells, place, counts = np.unique(ends >> _CELL_BITS, axis=0, return_inverse=True, return_counts=True)
    sums = [np.bincount(place.ravel(), weights=edited[:, channel]) for channel in range(3)]
    colours, known = np.stack(sums, axis=1) / counts[:, None], KDTree(cells)
    between = interval.frames[1:-1]
    wanted, where = np.unique(between.reshape(-1, 3) >> _CELL_BITS, axis=0, return_inverse=True)
    _, nearest = known.query(wanted)
    return _rounded(colours[nearest][where.ravel()].reshape(between.shape))


BASELINES: Final[Mapping[str, Callable[[KeyframeInterval], Frames]]] = {
    "nearest keyframe": nearest_keyframe,
    "cross-fade": cross_fade,
    "flow warp": flow_warp,
    "two-way warp": two_way_warp,
    "colour map": colour_map,
}


@lru_cache(maxsize=1)
def warm_up() -> None:
    """Compile patch synthesis before it is timed."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    still = np.zeros((2, 2, 16, 16), np.float32)
    propagate_interval(frames, first=255 - frames[0], last=255 - frames[2], flows_to_prev=still, flows_to_cur=still)


def _warped_both(interval: KeyframeInterval) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Warp both keyframes to each frame between them."""
    early = _warped(interval.first, interval.to_prev[:-1])
    late = _warped(interval.last, interval.to_cur[:0:-1])[::-1]
    return early, late


def _warped(keyframe: Frames, flows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Warp a keyframe from frame to frame; flow i points from frame i + 1 to frame i."""
    image = torch.from_numpy(keyframe).permute(2, 0, 1)[None].float()
    still = torch.zeros((1, 2, *image.shape[2:]))
    own, positions, warped = flow_positions(still), flow_positions(still), []
    for flow in torch.from_numpy(flows.copy())[:, None]:
        positions = backward_warp(positions, flow)
        warped.append(backward_warp(image, positions - own)[0].permute(1, 2, 0).numpy())
    return np.stack(warped)


def _mixed(early: NDArray[np.float32], late: NDArray[np.float32], fractions: NDArray[np.float32]) -> Frames:
    return _rounded((1 - fractions) * early + fractions * late)


def _rounded(values: NDArray[np.floating[Any]]) -> Frames:
    rounded: Frames = np.rint(values).astype(np.uint8)
    return rounded
