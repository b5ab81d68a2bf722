"""An edit explained by its source, place by place: the guided filter's local affine model.

In the window around each pixel the edited colours are explained as an affine function of the source's. Whatever the
source shows beyond what the model was fitted to may then pass through that function, as far as it explains the edit.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy.typing import NDArray

__all__ = ["NEAR", "NOISE", "RIDGE", "WINDOW", "LocalAffineFit", "fit_local_affine", "smooth_step"]

Image: TypeAlias = Float32[np.ndarray, "height width 3"]
Map: TypeAlias = Float64[np.ndarray, "height width"]
Matrices: TypeAlias = Float64[np.ndarray, "height width 3 3"]

NOISE: Final = 5.0
"""A root mean square that is not yet taken for a change, 8-bit levels: what a model's autoencoder adds."""
WINDOW: Final = 7
"""Side of the window in which the edit is explained, pixels. 5 follows clean edits closer, 9 noisy ones."""
NEAR: Final = 5
"""Side of the window that tells how well a pixel's neighbourhood is explained."""
RIDGE: Final = 0.25
"""Variance under which a direction of colour says nothing about the edit: what rounding leaves, and little more."""


class LocalAffineFit(NamedTuple):
    """An edit as a function of its source: edited = gain source + offset + residual."""

    gain: NDArray[np.float32]
    """(height, width, 3, 3): how a colour difference of the source appears in the edit, times `explained_variance`."""
    residual: NDArray[np.float64]
    """(height, width, 3): what of the edit is not explained."""
    explained_variance: NDArray[np.float64]
    """(height, width): fraction of the edit's variance around a pixel that the source explains, 0 to 1."""


def fit_local_affine(source: Image, edited: Image) -> LocalAffineFit:
    """Explain the edited colours by the source's in every window.

    Source: the local model is that of the guided filter (He, Sun and Tang, ECCV 2010). Deviates: the ridge pulls
    towards the identity where the edit left the source as it was.

    Args:
        source: float32, 8-bit levels.
        edited: the same frame after the edit.
    """
    # Deviations from the frame's mean colour: a variance is the small difference of two moments
    before, after = source - source.mean((0, 1)), edited - edited.mean((0, 1))
    spread = _covariance(before, before)
    gain = _gain(spread, _covariance(after, before), likeness=_likeness(source, edited))
    offset = _mean(after) - _applied(gain, _mean(before))
    residual = after - _applied(gain, before) - offset
    explained = np.einsum("hwij,hwjk,hwik->hw", gain, spread, gain, optimize=True) / 3 + NOISE**2
    fraction = explained / (explained + _mean(residual**2, NEAR).mean(2))
    return LocalAffineFit((gain * fraction[..., None, None]).astype(np.float32), residual, fraction)


def _gain(spread: Matrices, joint: Matrices, *, likeness: Map) -> Matrices:
    """Return the gains of least squares; a flat window, which tells none, keeps the source's detail if it is unedited.

    Without that an identical edit would lose the detail of flat regions, and a flat edit would take it on.
    """
    ridge = RIDGE * np.eye(3)
    return np.asarray((joint + likeness[..., None, None] * ridge) @ _inverse(spread + ridge))


def _likeness(source: Image, edited: Image) -> Map:
    """Tell, 0 to 1, how far a window of the edit is the source itself, noise aside: of its colours and no flatter."""
    distance = _mean((edited - source) ** 2).mean(2, dtype=np.float64)
    flatter = np.minimum((_variance(edited) + RIDGE) / (_variance(source) + RIDGE), 1)
    return np.asarray(np.exp(-distance / NOISE**2) * flatter)


def _variance(image: Image) -> Map:
    """Mean of the channels' variances in every window."""
    centred = image - image.mean((0, 1))
    return np.asarray(np.maximum(_mean(centred**2).mean(2, dtype=np.float64) - (_mean(centred) ** 2).mean(2), 0))


def _covariance(a: Image, b: Image) -> Matrices:
    """Covariance of each channel of `a` with each channel of `b` in every window."""
    joint = np.stack([_mean(a[..., channel, None] * b) for channel in range(3)], axis=2)
    return joint.astype(np.float64) - _mean(a)[..., :, None] * _mean(b)[..., None, :]


def _inverse(m: Matrices) -> Matrices:
    """Invert symmetric, positive definite 3 x 3 matrices in closed form: many times quicker than one by one."""
    a, b, c = (np.cross(m[..., (i + 1) % 3, :], m[..., (i + 2) % 3, :]) for i in range(3))
    determinant = np.sum(m[..., 0, :] * a, axis=-1)
    return np.asarray(np.stack([a, b, c], axis=-1) / determinant[..., None, None])


def _applied(matrices: Matrices, colours: Image) -> Float64[np.ndarray, "height width 3"]:
    return np.asarray(np.einsum("hwij,hwj->hwi", matrices, colours))


def _mean(image: Float[np.ndarray, "..."], side: int = WINDOW) -> NDArray[np.float32]:
    """Average over the window around each pixel, mirrored at the border."""
    averaged: NDArray[np.float32] = cv2.blur(
        np.ascontiguousarray(image, np.float32), (side, side), borderType=cv2.BORDER_REFLECT_101
    )
    return averaged


def smooth_step(x: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Rise from 0 at `low` to 1 at `high` without a kink: a threshold would flicker."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))
