"""Frame sizes and resampling. Sizes are (height, width)."""

from __future__ import annotations

from math import sqrt
from typing import TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from wave_ops.errors import WaveOpsError

Image = TypeVar("Image", NDArray[np.uint8], NDArray[np.float32])

__all__ = ["analysis_size", "fit_size", "resample", "resize_frames", "to_images"]


def fit_size(source: tuple[int, int], *, native_area: int, multiple: int) -> tuple[int, int]:
    """Return a size of the source's aspect and about ``native_area`` pixels, in multiples of ``multiple``.

    Each side is rounded to its nearest multiple and is at least one multiple, so aspect and area are approximate.

    Args:
        source: (height, width), pixels.
        native_area: the area that the model was trained on, pixels.
        multiple: divisor of both sides, pixels.

    Raises:
        WaveOpsError: a side, the area or the multiple is below 1.
    """
    _check_size(source)
    if native_area < 1 or multiple < 1:
        raise WaveOpsError(f"expected an area and a multiple of at least 1, got {native_area} and {multiple}")
    scale = sqrt(native_area / (source[0] * source[1]))
    height, width = (max(1, round(side * scale / multiple)) * multiple for side in source)
    return height, width


def analysis_size(source: tuple[int, int], *, max_area: int = 512 * 512) -> tuple[int, int]:
    """Return the size that flow is estimated at: the source's, or a smaller one of at most ``max_area`` pixels.

    Args:
        source: (height, width), pixels.
        max_area: pixels; WAVE's authors estimated flow at 512 x 512.

    Returns:
        (height, width): the source's where it is small enough; else of its aspect, with even sides of at least 2.

    Raises:
        WaveOpsError: a side is below 1, or ``max_area`` below 4.
    """
    _check_size(source)
    if max_area < 4:
        raise WaveOpsError(f"expected a largest area of at least 4 pixels, got {max_area}")
    if source[0] * source[1] <= max_area:
        return source
    scale = sqrt(max_area / (source[0] * source[1]))
    height, width = (max(2, int(side * scale / 2) * 2) for side in source)
    return height, width


def resize_frames(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resample frames to another size: by area along a side that shrinks, cubic along one that grows.

    Args:
        frames: uint8 (time, height, width, channel).
        size: the new (height, width), pixels.

    Returns:
        uint8 (time, *size, channel); the same object where the size is unchanged.

    Raises:
        WaveOpsError: the frames are not uint8 with four axes, or a side is below 1.

    Convention:
        Pixel centres correspond as in ``align_corners=False``.
    """
    _check_size(size)
    if frames.ndim != 4 or frames.dtype != np.uint8 or 0 in frames.shape[1:]:
        raise WaveOpsError(
            f"expected uint8 frames (time, height, width, channel), got {frames.shape} of {frames.dtype}"
        )
    if frames.shape[1:3] == tuple(size):
        return frames
    resized = np.empty((len(frames), *size, frames.shape[3]), np.uint8)
    for target, frame in zip(resized, frames, strict=True):
        target[...] = resample(frame, size).reshape(target.shape)
    return resized


def resample(frame: Image, size: tuple[int, int]) -> Image:
    """Resample one image (height, width) or (height, width, channel), uint8 or float32, as `resize_frames` does."""
    # Shrink first: area weights would enlarge the other side by replication, cubic ones would alias this side
    smaller = min(frame.shape[0], size[0]), min(frame.shape[1], size[1])
    if smaller != frame.shape[:2]:
        frame = cv2.resize(frame, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != tuple(size):
        frame = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_CUBIC)
    return frame


def to_images(frames: UInt8[np.ndarray, "frame height width 3"]) -> Float[Tensor, "frame 3 height width"]:
    """Convert uint8 frames to the images that torch operations read: channel first, float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise WaveOpsError(f"expected a size (height, width) of at least 1 pixel each, got {size}")
