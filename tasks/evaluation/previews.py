"""Short looping films for the report: the frames of a method, and their difference from the reference."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.video import Encoding, write_video
from wave_ops.resize import resize_frames

__all__ = ["GAIN", "amplified_difference", "legible", "write_film"]

Frames = NDArray[np.uint8]

GAIN = 3
"""Factor by which differences are amplified."""
_SMALLEST, _LARGEST = 192, 384
_RATE = 8
_CRF = 23


def legible(frames: Frames) -> Frames:
    """Resize the longer side to between 192 and 384 pixels; small frames are enlarged by an integer, pixel by pixel.

    Args:
        frames: uint8 (time, height, width, 3).
    """
    longer = max(frames.shape[1:3])
    if longer > _LARGEST:
        height, width = (max(2, round(side * _LARGEST / longer / 2) * 2) for side in frames.shape[1:3])
        return resize_frames(frames, (height, width))
    factor = ceil(_SMALLEST / longer)
    return frames.repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else frames


def amplified_difference(frames: Frames, reference: Frames) -> Frames | None:
    """Draw the amplified difference around a middle grey; return None if the lengths differ.

    Args:
        frames: uint8 (time, height, width, 3).
        reference: the same length; resized if its size differs.
    """
    if len(frames) != len(reference):
        return None
    height, width = frames.shape[1:3]
    difference = frames.astype(np.int16) - resize_frames(reference, (height, width))
    drawn: Frames = np.clip(128 + GAIN * difference, 0, 255).astype(np.uint8)
    return drawn


def write_film(path: Path, frames: Frames) -> None:
    """Write frames as an H.264 film at 8 frames per second, in a size that is easy to see.

    Raises:
        VideoError: if the frames cannot be encoded.
    """
    write_video(
        path, legible(frames), timestamps=range(len(frames)), time_base=Fraction(1, _RATE), encoding=Encoding(crf=_CRF)
    )
