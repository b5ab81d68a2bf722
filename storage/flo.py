"""Optical flow in Middlebury's .flo files.

Format: a magic number, width, height, then x and y of every pixel, row by row, all little-endian.
Source: Baker et al., "A Database and Evaluation Methodology for Optical Flow" (IJCV 2011), and its flow code.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.errors import StorageError

__all__ = ["read_flo"]

_MAGIC = 202021.25
_HEADER = struct.Struct("<fii")
_LARGEST_SIDE = 99_999  # the limit of the reference reader
_KNOWN = 1e9  # the format's bound: a larger component marks a pixel with unknown flow


def read_flo(path: Path) -> npt.NDArray[np.float32]:
    """Read a flow.

    Returns:
        Flow (2, height, width) in pixels, x then y; NaN in both components where it is unknown.

    Raises:
        StorageError: if the file is absent, is not a .flo file, or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"The flow {path} cannot be read: {error.strerror}.") from None
    width, height = _size(data, path)
    expected = _HEADER.size + 8 * width * height
    if len(data) != expected:
        raise StorageError(
            f"The flow {path} is damaged: {width} x {height} pixels take {expected} bytes, it has {len(data)}."
        )
    pixels = np.frombuffer(data, "<f4", offset=_HEADER.size).reshape(height, width, 2)
    flow = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
    known = (np.abs(flow) <= _KNOWN).all(axis=0)  # False for NaN
    return np.where(known, flow, np.float32(np.nan))


def _size(data: bytes, path: Path) -> tuple[int, int]:
    magic, width, height = _HEADER.unpack_from(data) if len(data) >= _HEADER.size else (0.0, 0, 0)
    if magic != _MAGIC:
        raise StorageError(f"{path} is not a .flo file: it does not begin with the number {_MAGIC}.")
    if not 0 < min(width, height) <= max(width, height) <= _LARGEST_SIDE:
        raise StorageError(f"The flow {path} is damaged: its size is {width} x {height}.")
    return width, height
