"""Which of two candidates each pixel is taken from."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from wave_ops.errors import WaveOpsError
from wave_ops.propagation.settings import SelectionWeight

__all__ = ["UNSEEN", "blend_weights", "carry_selection", "select", "selection_weight"]


UNSEEN = 100.0  # the patch error of one level of difference in every style and colour channel, about


def selection_weight(index: int, length: int, *, kind: SelectionWeight = "symmetric") -> float:
    """Return how far frame `index` of an interval leans to its later keyframe, 0 to 1.

    Source: WAVE (ECCV 2024) ran (i - 1)/(K - 1), which gives the earlier keyframe one frame more than the later one.
    Deviates by default: i/K treats both alike, and a clip played backwards gives the same result.

    Args:
        index: place in the interval, 1 to `length` - 1.
        length: frames from keyframe to keyframe, K.
        kind: "symmetric" or "published".

    Raises:
        WaveOpsError: the frame is a keyframe or outside the interval.
    """
    if not 0 < index < length:
        raise WaveOpsError(f"only the frames 1 to {length - 1} between the keyframes are selected, got {index}")
    return index / length if kind == "symmetric" else (index - 1) / (length - 1)


def select(
    first_error: Float[np.ndarray, "height width"],
    last_error: Float[np.ndarray, "height width"],
    *,
    weight: float,
    switched: Bool[np.ndarray, "height width"] | None = None,
) -> Bool[np.ndarray, "height width"]:
    """Return True where a pixel is taken from the candidate of the later keyframe.

    That is where `weight` times the first error is at least 1 - `weight` times the last one, and where the pixel has
    switched before. Both errors are the patch errors of this very frame.

    Source: WAVE (ECCV 2024).

    Args:
        first_error: patch error of the candidate from the earlier keyframe.
        last_error: patch error of the candidate from the later keyframe.
        weight: see `selection_weight`.
        switched: pixels that were taken from the later keyframe before, carried to this frame.
    """
    chosen: Bool[np.ndarray, "height width"] = weight * first_error >= (1 - weight) * last_error
    return chosen if switched is None else chosen | switched


def blend_weights(
    first_error: Float[np.ndarray, "height width"], last_error: Float[np.ndarray, "height width"], *, weight: float
) -> Float[np.ndarray, "height width"]:
    """Return the share of the later keyframe's candidate at each pixel of the blend, 0 to 1.

    The soft form of `select`: weight E0 / (weight E0 + (1 - weight) EK), which is `weight` where both fit alike, and
    nears 0 or 1 where only one keyframe sees what is there. Errors are averaged over 9 x 9 pixels first, since the
    share should follow regions, and raised by an error too small to see.

    Deviates from WAVE (ECCV 2024), whose share is `weight` everywhere: half of what cannot be right shines through.
    """
    first, last = (
        cv2.blur(error, (9, 9), borderType=cv2.BORDER_REPLICATE) + UNSEEN for error in (first_error, last_error)
    )
    share: Float[np.ndarray, "height width"] = weight * first / (weight * first + (1 - weight) * last)
    return share


def carry_selection(
    chosen: Bool[np.ndarray, "height width"],
    flow_to_prev: Float32[np.ndarray, "2 height width"],
    holes: Bool[np.ndarray, "height width"],
) -> Bool[np.ndarray, "height width"]:
    """Return the selection of the frame before, as the flow carries it (nearest) to this frame.

    What has no match in the frame before (`holes`) starts anew.
    """
    height, width = chosen.shape
    y, x = np.mgrid[:height, :width]
    x = np.clip(np.rint(x + flow_to_prev[0]).astype(np.intp), 0, width - 1)
    y = np.clip(np.rint(y + flow_to_prev[1]).astype(np.intp), 0, height - 1)
    carried: Bool[np.ndarray, "height width"] = chosen[y, x] & ~holes
    return carried
