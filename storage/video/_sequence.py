"""Sequences of pictures: each is read upright, and all become one video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from storage.errors import VideoError
from storage.video._colour import ToRgb
from storage.video._decode import FrameReader
from storage.video._notes import Notes
from storage.video._packed import write_packed

__all__ = ["pack_pictures"]

Frame: TypeAlias = npt.NDArray[np.uint8]


def pack_pictures(paths: Sequence[Path], target: Path, *, rate: Fraction, notes: Notes | None = None) -> None:
    """Write pictures as a video without loss, one in memory at a time.

    Args:
        paths: the pictures in their order; others than the first one are fitted into its size with black borders.
        target: the file, a QuickTime video.
        rate: pictures per second.
        notes: where to note what reading them loses.

    Raises:
        VideoError: if one of them cannot be read, or has several frames.
    """
    notes = Notes() if notes is None else notes
    write_packed(target, ((frame, 1) for frame in _upright(paths, notes)), time_base=1 / rate)


def _upright(paths: Sequence[Path], notes: Notes) -> Iterator[Frame]:
    to_size: ToRgb | None = None
    size = (0, 0)
    for index, path in enumerate(paths):
        pairs = iter(FrameReader(path, notes=notes))
        _, frame = next(pairs)
        if next(pairs, None) is not None:
            raise VideoError(f"{path} has several frames: name it alone, or leave it out of the pictures")
        if frame.shape[:2] != size:
            size = (frame.shape[0], frame.shape[1])
            if index:
                notes.size_changed(index, size)
        to_size = to_size or ToRgb(size)
        yield to_size.fitted(frame)
