"""Flow as a picture: the hue tells the direction, the strength of the colour the length; what stands still is white."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["flow_pictures", "longest_of"]


def flow_pictures(flows: NDArray[np.float32], *, longest: float) -> NDArray[np.uint8]:
    """Draw flows (flow, 2, height, width) as frames (flow, height, width, 3); what is not known is grey.

    Args:
        flows: pixels, x then y.
        longest: the length that gets the full colour, pixels; longer ones get it too.
    """
    return np.stack([_picture(flow, longest) for flow in flows])


def longest_of(flows: NDArray[np.float32]) -> float:
    """Nearly the greatest length among flows, pixels; at least 1."""
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
