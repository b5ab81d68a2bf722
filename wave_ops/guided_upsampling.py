"""An edit made at a small size, brought to the size of its source and guided by it.

Around each small pixel the edited colours are explained as an affine function of the source's: the guided filter's
model. What the source shows beyond the small size then passes through that function, as far as the function explains
the edit; where it does not, as with a new shape, the edit is enlarged and nothing of the source is added.

Convention:
    Pixel centres correspond as in `align_corners=False`. All tolerances are in 8-bit levels.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy.typing import NDArray

from wave_ops.errors import WaveOpsError
from wave_ops.guided_filter import NOISE, fit_local_affine, smooth_step
from wave_ops.resize import resample, resize_frames

__all__ = ["upsample_edit"]

Frame: TypeAlias = UInt8[np.ndarray, "height width 3"]
Small: TypeAlias = UInt8[np.ndarray, "low_height low_width 3"]
Image: TypeAlias = Float32[np.ndarray, "rows columns channel"]
Matrices: TypeAlias = Float64[np.ndarray, "low_height low_width 3 3"]

_TRUSTED: Final = (0.5, 0.9)
"""Where the explained share passes from the lower to the upper, the unexplained rest passes from kept to noise. Lower
values mend more of what a model slipped, and wash out more of what it drew."""


def upsample_edit(source: Frame, edited: Small) -> Frame:
    """Bring an edited frame to its source's size: sharp where the source explains the edit, plainly enlarged elsewhere.

    With S the source at the edit's size, U enlargement and A the gain of the local affine model, the result is
    U(base) + A (source - U(S)), within the range of the edit's neighbourhood.

    Source: the local model is that of the guided filter (He, Sun and Tang, ECCV 2010), fitted at the small size as in
    the fast guided filter (He and Sun, arXiv:1505.00996). Deviates: only the detail that the small size lost passes
    through the model, by gains shrunk with the share of the edit that is explained, and the residual is kept unless
    that share is high; the ridge pulls towards the identity where the edit left the source as it was.

    Args:
        source: the source frame, uint8 (height, width, 3).
        edited: the edited frame, uint8 (low_height, low_width, 3); any size, also one larger than the source's.

    Returns:
        uint8 of the source's shape: the source itself where `edited` is `resize_frames` of it.

    Raises:
        WaveOpsError: a frame is not uint8 with three axes, three channels and at least one pixel.
    """
    for name, frame in (("source", source), ("edited", edited)):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise WaveOpsError(
                f"expected the {name} frame as uint8 (height, width, 3), got {frame.shape} of {frame.dtype}"
            )
    small = resize_frames(source[None], (edited.shape[0], edited.shape[1]))[0]
    size = (source.shape[0], source.shape[1])
    fit = fit_local_affine(small.astype(np.float32), edited.astype(np.float32))
    noise = smooth_step(fit.explained_variance, *_TRUSTED)[..., None] * fit.residual
    base = (edited - noise).astype(np.float32)
    detail = source - resample(small.astype(np.float32), size)
    # What the source shows beyond its small range the edit may too, with twice the contrast, and a halo nobody sees
    beyond = 2 * _beyond_range(source, small) + NOISE
    result = np.empty_like(source)
    for channel in range(3):  # one at a time, for memory's sake
        plane = resample(np.ascontiguousarray(base[..., channel]), size)
        plane += np.einsum("hwk,hwk->hw", _linear(fit.gain[..., channel, :], size), detail)
        lowest, highest = _local_range(np.ascontiguousarray(edited[..., channel]), size)
        result[..., channel] = np.clip(np.rint(np.clip(plane, lowest - beyond, highest + beyond)), 0, 255)
    return result


def _beyond_range(source: Frame, small: Small) -> Float32[np.ndarray, "height width"]:
    """How far the source leaves its own range at the small size, in the channel where it leaves it furthest."""
    height, width, _ = source.shape
    beyond = np.zeros((height, width), np.float32)
    for channel in range(3):
        plane = source[..., channel]
        lowest, highest = _local_range(np.ascontiguousarray(small[..., channel]), (height, width))
        np.maximum(beyond, np.maximum(plane - highest, lowest - plane), out=beyond)
    return beyond


def _local_range(
    plane: UInt8[np.ndarray, "low_height low_width"], size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest value of each pixel and its eight neighbours, enlarged."""
    square = np.ones((3, 3), np.uint8)
    return _linear(cv2.erode(plane, square), size), _linear(cv2.dilate(plane, square), size)


def _linear(image: NDArray[np.uint8] | NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarge without overshoot."""
    enlarged: NDArray[np.float32] = cv2.resize(
        np.ascontiguousarray(image, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR
    )
    return enlarged
