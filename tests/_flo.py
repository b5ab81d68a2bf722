"""Optical flow written as Middlebury's .flo files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["write_flo"]


def write_flo(path: Path, flow: NDArray[np.floating[Any]]) -> None:
    """Write a flow (2, height, width) in pixels; where it is NaN the file stores 1e10, the format's unknown flow."""
    height, width = flow.shape[1:]
    pixels = np.nan_to_num(flow, nan=1e10).transpose(1, 2, 0).astype("<f4")
    path.write_bytes(b"PIEH" + struct.pack("<ii", width, height) + pixels.tobytes())
