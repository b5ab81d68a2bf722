"""Canny edges, the input of canny ControlNets."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

__all__ = ["canny_edges"]


def canny_edges(
    frames: UInt8[np.ndarray, "frame height width 3"], *, low: float = 100, high: float = 200
) -> Float[Tensor, "frame 3 height width"]:
    """Compute canny edges, 0 or 1, in three equal channels.

    In colour: a pixel has the gradient of the channel that changes most, so that an outline between colours of one
    brightness is an edge. Source: WAVE sec. 6 (canny 100 / 200), on RGB frames as its authors run it.

    Args:
        frames: uint8 RGB.
        low: gradient from which a pixel continues an edge, 8-bit levels (Sobel, 3 x 3).
        high: gradient from which a pixel starts an edge.
    """
    edges = np.stack([cv2.Canny(np.ascontiguousarray(frame), low, high) for frame in frames])
    return (torch.from_numpy(edges)[:, None] / 255).expand(-1, 3, -1, -1)  # OpenCV marks edges by 255
