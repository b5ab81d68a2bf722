"""Resampling of frames. Sizes are (height, width)."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.sizes import analysis_size, check_size, fit_size

Image = TypeVar("Image", NDArray[np.uint8], NDArray[np.float32])

__all__ = ["analysis_size", "fit_size", "resample", "resize_frames", "to_images"]


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
    check_size(size)
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
