"""Local affine regression of an edit on its source: the guided filter.

In the window around each pixel, the edited colours are fitted as an affine function of the source's colours. Detail of
the source that the fit has not seen can then be mapped by that function, as far as the function explains the edit.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy.typing import NDArray

__all__ = [
    "NEAR",
    "NOISE",
    "RIDGE",
    "WINDOW",
    "LocalAffineFit",
    "fit_local_affine",
    "guided_filter",
    "smooth_step",
]

Image: TypeAlias = Float32[np.ndarray, "height width 3"]
Map: TypeAlias = Float64[np.ndarray, "height width"]
Matrices: TypeAlias = Float64[np.ndarray, "height width 3 3"]

NOISE: Final = 5.0
"""Root mean square of a difference that does not count as a change, 8-bit levels: that of a model's autoencoder."""
WINDOW: Final = 7
"""Side of the window of a fit, pixels. 5 fits clean edits better, 9 noisy ones."""
NEAR: Final = 5
"""Side of the window in which the residual of a fit is averaged, pixels."""
RIDGE: Final = 0.25
"""Ridge of the regression, 8-bit levels squared: a few times the variance of rounding, 1 / 12."""


class LocalAffineFit(NamedTuple):
    """An edit as a local affine function of its source: edited = gain source + offset + residual."""

    gain: NDArray[np.float32]
    """(height, width, 3, 3), edited channel by source channel: the gain, times `explained_variance`."""
    residual: NDArray[np.float64]
    """(height, width, 3), 8-bit levels."""
    explained_variance: NDArray[np.float64]
    """(height, width): fraction of the edit's variance around a pixel that the source explains, 0 to 1."""


def fit_local_affine(source: Image, edited: Image) -> LocalAffineFit:
    """Fit the edited colours as an affine function of the source's in the window around every pixel.

    Source: the local model of the guided filter (He, Sun and Tang, ECCV 2010). Deviates: the ridge pulls the gain
    towards the identity, rather than towards 0, where the edit left the source unchanged.

    Args:
        source: 8-bit levels.
        edited: the same frame after the edit, 8-bit levels.
    """
    # A variance is the small difference of two moments: centred colours keep it exact in float32
    before, after = source - source.mean((0, 1)), edited - edited.mean((0, 1))
    spread = _covariance(before, before)
    gain = _gain(spread, _covariance(after, before), likeness=_likeness(source, edited))
    offset = _mean(after) - _applied(gain, _mean(before))
    residual = after - _applied(gain, before) - offset
    # The noise counts as explained, so that the fraction of a flat region is near 1 rather than 0 / 0
    explained = np.einsum("hwij,hwjk,hwik->hw", gain, spread, gain, optimize=True) / 3 + NOISE**2
    fraction = explained / (explained + _mean(residual**2, NEAR).mean(2))
    return LocalAffineFit((gain * fraction[..., None, None]).astype(np.float32), residual, fraction)


def guided_filter(
    guide: Image, values: Float32[np.ndarray, "height width"], *, side: int, ridge: float
) -> Float64[np.ndarray, "height width"]:
    """Smooth values so that they change where the guide does.

    Source: He, Sun and Tang, "Guided Image Filtering" (ECCV 2010), with a guide in colour.

    Args:
        guide: 8-bit levels.
        values: one number for each pixel.
        side: of the window, pixels.
        ridge: of the regression, 8-bit levels squared: a window of less variance is averaged.
    """
    centred = guide - guide.mean((0, 1))
    spread = _covariance(centred, centred, side) + ridge * np.eye(3)
    joint = _mean(centred * values[..., None], side) - _mean(centred, side) * _mean(values, side)[..., None]
    gain = np.einsum("hwij,hwj->hwi", _inverse(spread), joint)
    offset = _mean(values, side) - (gain * _mean(centred, side)).sum(2)
    return np.asarray((_mean(gain, side) * centred).sum(2) + _mean(offset, side), np.float64)


def _gain(spread: Matrices, joint: Matrices, *, likeness: Map) -> Matrices:
    """Return the gains of ridge regression: in a flat window the identity if it is unedited, else 0.

    With a ridge towards 0 alone, an unchanged edit would lose the detail of flat regions; towards the identity alone, a
    flat edit would gain it.
    """
    ridge = RIDGE * np.eye(3)
    return np.asarray((joint + likeness[..., None, None] * ridge) @ _inverse(spread + ridge))


def _likeness(source: Image, edited: Image) -> Map:
    """Return, 0 to 1, how similar a window of the edit is to the source: of the same colours, and not flatter."""
    distance = _mean((edited - source) ** 2).mean(2, dtype=np.float64)
    flatter = np.minimum((_variance(edited) + RIDGE) / (_variance(source) + RIDGE), 1)
    return np.asarray(np.exp(-distance / NOISE**2) * flatter)


def _variance(image: Image) -> Map:
    """Return the mean of the channels' variances in every window."""
    centred = image - image.mean((0, 1))
    return np.asarray(np.maximum(_mean(centred**2).mean(2, dtype=np.float64) - (_mean(centred) ** 2).mean(2), 0))


def _covariance(a: Image, b: Image, side: int = WINDOW) -> Matrices:
    """Return the covariance of each channel of `a` with each channel of `b` in every window."""
    joint = np.stack([_mean(a[..., channel, None] * b, side) for channel in range(3)], axis=2)
    return joint.astype(np.float64) - _mean(a, side)[..., :, None] * _mean(b, side)[..., None, :]


def _inverse(m: Matrices) -> Matrices:
    """Invert symmetric, positive definite 3 x 3 matrices in closed form: much faster than LAPACK, one by one."""
    a, b, c = (np.cross(m[..., (i + 1) % 3, :], m[..., (i + 2) % 3, :]) for i in range(3))
    determinant = np.sum(m[..., 0, :] * a, axis=-1)
    return np.asarray(np.stack([a, b, c], axis=-1) / determinant[..., None, None])


def _applied(matrices: Matrices, colours: Image) -> Float64[np.ndarray, "height width 3"]:
    return np.asarray(np.einsum("hwij,hwj->hwi", matrices, colours))


def _mean(image: Float[np.ndarray, "..."], side: int = WINDOW) -> NDArray[np.float32]:
    """Return the mean over the window around each pixel, mirrored at the border."""
    averaged: NDArray[np.float32] = cv2.blur(
        np.ascontiguousarray(image, np.float32), (side, side), borderType=cv2.BORDER_REFLECT_101
    )
    return averaged


def smooth_step(x: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return 0 below `low`, 1 above `high` and a smooth rise between: a threshold would flicker from frame to frame."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))
