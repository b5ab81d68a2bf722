"""Optical flow in Middlebury's .flo files: a magic number, width, height, then x and y of every pixel, row by row.

Convention: flow is float32 (2, height, width), x then y, in pixels; NaN in both where it is not known.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.errors import StorageError
from storage.files import write_atomic

__all__ = ["read_flo", "write_flo"]

_MAGIC = 202021.25
_HEADER = struct.Struct("<fii")
_LARGEST_SIDE = 99_999
_KNOWN = 1e9
"""The format's bound: a larger component stands for a flow that is not known."""
_UNKNOWN = 1e10


def read_flo(path: Path) -> npt.NDArray[np.float32]:
    """Read a flow (2, height, width).

    Source: Baker et al., "A Database and Evaluation Methodology for Optical Flow" (IJCV 2011), and its flow code.

    Raises:
        StorageError: if there is no such file, or it holds no flow, or not the whole of it.
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
    flow = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    return _with_unknown(flow, np.nan)


def write_flo(path: Path, flow: npt.NDArray[np.floating[Any]]) -> None:
    """Write a flow (2, height, width), as a whole or not at all; what is not finite becomes unknown.

    Raises:
        StorageError: if the array is no flow.
    """
    if flow.ndim != 3 or flow.shape[0] != 2 or not 0 < min(flow.shape) <= max(flow.shape) <= _LARGEST_SIDE:
        raise StorageError(f"A flow is (2, height, width), x then y; got {flow.shape}.")
    height, width = flow.shape[1:]
    pixels = _with_unknown(flow.astype(np.float32), _UNKNOWN).transpose(1, 2, 0)
    write_atomic(path, _HEADER.pack(_MAGIC, width, height) + pixels.astype("<f4").tobytes())


def _size(data: bytes, path: Path) -> tuple[int, int]:
    magic, width, height = _HEADER.unpack_from(data) if len(data) >= _HEADER.size else (0.0, 0, 0)
    if magic != _MAGIC:
        raise StorageError(f"{path} is no .flo file: it does not begin with the number {_MAGIC}.")
    if not 0 < min(width, height) <= max(width, height) <= _LARGEST_SIDE:
        raise StorageError(f"The flow {path} is damaged: its size is {width} x {height}.")
    return width, height


def _with_unknown(flow: npt.NDArray[np.float32], value: float) -> npt.NDArray[np.float32]:
    """The flow with `value` in both components of every pixel that has one beyond the bound, or none at all."""
    known = (np.abs(flow) <= _KNOWN).all(axis=0)  # False for NaN
    return np.where(known, flow, np.float32(value))
