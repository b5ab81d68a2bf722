"""Faults of whole edited videos that single frames do not show: pulse between keyframes, and drift.

Convention:
    Frames are uint8 RGB (time, height, width, 3), masks bool (time, height, width). Both metrics compare with the true
    edit, so that what belongs to the scene, such as an object that becomes smaller, does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import nan
from typing import Final, Literal, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from wave_ops.errors import WaveOpsError

__all__ = ["colour_drift", "keyframe_pulse"]

Frames: TypeAlias = UInt8[np.ndarray, "time height width 3"]
Masks: TypeAlias = Bool[np.ndarray, "time height width"]

_VISIBLE_FRACTION: Final = 0.01
_DRIFT_FRACTION: Final = 0.1


def keyframe_pulse(
    frames: Frames,
    truth: Frames,
    masks: Masks,
    keyframes: Sequence[int],
    *,
    of: Literal["saturation", "contrast"] = "saturation",
) -> float:
    """Return by how much a region's colour leaves, between keyframes, the line from keyframe to keyframe.

    Source: ours. The mean saturation (or the standard deviation of the lightness) inside the mask of each frame, less
    the line between the values of the keyframes around it, less the same of the true edit; root mean square over the
    frames between keyframes. Unit: steps of 255. 0 for the true edit, and for anything that changes linearly between
    keyframes, such as a flicker of the keyframes themselves.

    Args:
        frames: the edited clip.
        truth: the true edit.
        masks: true object; frames in which it covers less than 1 % do not count, and intervals of which a keyframe
            does not count.
        keyframes: indices of the keyframes, ascending. Frames outside of them do not count.
        of: saturation of HSV, or contrast.

    Returns:
        Not a number if no frame counts.

    Raises:
        WaveOpsError: the arrays do not fit together.
    """
    _check(frames, truth, masks)
    beats = [
        _off_line(_levels(clip, masks, of=of), first, last)
        for first, last in pairwise(keyframes)
        for clip in (frames, truth)
    ]
    each = [made - true for made, true in zip(beats[::2], beats[1::2], strict=True)]
    found = np.concatenate([np.empty(0), *each])
    found = found[np.isfinite(found)]
    return float(np.sqrt(np.square(found).mean())) if len(found) else nan


def colour_drift(frames: Frames, truth: Frames, regions: Sequence[Masks]) -> float:
    """Return how far colours move from the first tenth of a clip to the last, beyond those of the true edit.

    Source: ours. The mean CIE Lab colour of a region in the last tenth of the frames less that in the first tenth, less
    the same of the true edit; its length, a distance in Lab (about 2 can be seen), mean over the regions. Range from 0,
    the true edit.

    Args:
        frames: the edited clip.
        truth: the true edit.
        regions: masks of the regions, such as an object and the background; those that cover less than 1 % of the
            frames at either end do not count.

    Returns:
        Not a number if no region counts.

    Raises:
        WaveOpsError: the arrays do not fit together.
    """
    for region in regions:
        _check(frames, truth, region)
    count = max(1, round(_DRIFT_FRACTION * len(frames)))
    made, true = (_to_lab(clip) for clip in (frames, truth))
    ends, drifts = (slice(0, count), slice(len(frames) - count, None)), []
    for region in regions:
        if all(region[end].mean() >= _VISIBLE_FRACTION for end in ends):
            # Differences first: what moves in the true edit too cancels out
            first, last = ((made[end] - true[end])[region[end]].mean(axis=0) for end in ends)
            drifts.append(float(np.linalg.norm(last - first)))
    return float(np.mean(drifts)) if drifts else nan


def _levels(frames: Frames, masks: Masks, *, of: str) -> Float64[np.ndarray, "time"]:
    """Return one number per frame, of 255; not a number where the mask is too small."""
    levels = np.full(len(frames), nan)
    for index in np.flatnonzero(masks.mean(axis=(1, 2)) >= _VISIBLE_FRACTION):
        inside = frames[index][masks[index]][None]
        if of == "saturation":
            levels[index] = cv2.cvtColor(inside, cv2.COLOR_RGB2HSV)[..., 1].mean()
        else:
            levels[index] = cv2.cvtColor(inside, cv2.COLOR_RGB2LAB)[..., 0].std()
    return levels


def _off_line(levels: Float64[np.ndarray, "time"], first: int, last: int) -> Float64[np.ndarray, "between"]:
    line = np.linspace(levels[first], levels[last], last - first + 1)
    off: Float64[np.ndarray, "between"] = (levels[first : last + 1] - line)[1:-1]
    return off


def _to_lab(frames: Frames) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.stack([cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for frame in frames])


def _check(frames: Frames, truth: Frames, masks: Masks) -> None:
    if frames.dtype != np.uint8 or frames.shape != truth.shape or frames.shape != (*masks.shape, 3):
        raise WaveOpsError(
            f"expected uint8 frames (time, height, width, 3), the true edit's and one mask each, got {frames.dtype} "
            f"{frames.shape}, {truth.shape} and masks {masks.shape}"
        )
