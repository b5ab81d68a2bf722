"""Upsampling of an edit made at a small size, guided by the full-size source.

Around each small pixel, the edited colours are fitted as an affine function of the source's (`wave_ops.guided_filter`).
The detail that the source loses at the small size is mapped by that function and added to the enlarged edit, as far as
the function explains the edit. Where it does not, as in a new shape, no detail is added.

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
"""Explained variance from which the residual of the fit begins to count as noise, and from which all of it does. Lower
values remove more of a model's errors, and more of what it drew."""


def upsample_edit(source: Frame, edited: Small) -> Frame:
    """Upsample an edited frame to its source's size: sharp where the source explains the edit, cubic elsewhere.

    With S the source at the edit's size, U cubic upsampling and A the gain of the local affine fit, the result is
    U(base) + A (source - U(S)), clipped to the range of the edit's neighbourhood; base is the edit without noise.

    Source: the guided filter (He, Sun and Tang, ECCV 2010), fitted at the small size as in the fast guided filter (He
    and Sun, arXiv:1505.00996). Deviates: the model maps only the detail that the small size lost, with gains scaled by
    the explained variance; the residual is kept unless the explained variance is high; and the ridge pulls towards the
    identity where the edit left the source unchanged.

    Args:
        source: the source frame, uint8 (height, width, 3).
        edited: the edited frame, uint8 (low_height, low_width, 3), of any size.

    Returns:
        uint8 of the source's shape; exactly the source if `edited` is `resize_frames` of it.

    Raises:
        WaveOpsError: a frame is not uint8 (height, width, 3) with at least one pixel.
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
    # Against the float enlargement, as the base is enlarged: an unchanged edit then returns the source exactly
    detail = source - resample(small.astype(np.float32), size)
    # Where the source's detail exceeds its own small range, so may the edit's: at twice the contrast, and by the noise
    beyond = 2 * _beyond_range(source, small) + NOISE
    result = np.empty_like(source)
    for channel in range(3):  # one at a time, to bound the memory
        plane = resample(np.ascontiguousarray(base[..., channel]), size)
        plane += np.einsum("hwk,hwk->hw", _linear(fit.gain[..., channel, :], size), detail)
        lowest, highest = _local_range(np.ascontiguousarray(edited[..., channel]), size)
        result[..., channel] = np.clip(np.rint(np.clip(plane, lowest - beyond, highest + beyond)), 0, 255)
    return result


def _beyond_range(source: Frame, small: Small) -> Float32[np.ndarray, "height width"]:
    """Return how far the source exceeds its own range at the small size, in the channel where that is most."""
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
    """Return the lowest and the highest value of each pixel and its eight neighbours, enlarged."""
    square = np.ones((3, 3), np.uint8)
    return _linear(cv2.erode(plane, square), size), _linear(cv2.dilate(plane, square), size)


def _linear(image: NDArray[np.uint8] | NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize without overshoot."""
    enlarged: NDArray[np.float32] = cv2.resize(
        np.ascontiguousarray(image, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR
    )
    return enlarged
