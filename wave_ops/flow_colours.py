"""Optical flow drawn in colours: hue for the direction, saturation for the length, white for no motion."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["flow_pictures", "longest_of"]


def flow_pictures(flows: NDArray[np.float32], *, longest: float) -> NDArray[np.uint8]:
    """Draw flows as frames; flow that is not finite is unknown and grey.

    Args:
        flows: float32 (flow, 2, height, width), pixels, x then y.
        longest: the length of full saturation, pixels; longer flow is drawn the same.

    Returns:
        uint8 (flow, height, width, 3).
    """
    return np.stack([_picture(flow, longest) for flow in flows])


def longest_of(flows: NDArray[np.float32]) -> float:
    """Return the length for `flow_pictures` to saturate at: the 99 % quantile of all lengths, at least 1 pixel."""
    lengths = np.hypot(flows[:, 0], flows[:, 1])
    known = lengths[np.isfinite(lengths)]
    return max(1.0, float(np.quantile(known, 0.99))) if known.size else 1.0


def _picture(flow: NDArray[np.float32], longest: float) -> NDArray[np.uint8]:
    known = np.isfinite(flow[0] + flow[1])
    x, y = np.where(known, flow, 0)
    hue = np.degrees(np.arctan2(y, x)) % 360
    strength = np.minimum(np.hypot(x, y) / longest, 1)
    colours = cv2.cvtColor(np.dstack([hue, strength, np.ones_like(hue)]).astype(np.float32), cv2.COLOR_HSV2RGB)
    return np.where(known[..., None], np.rint(255 * colours), 128).astype(np.uint8)
