"""An edit made at a small size, brought to the size of its source and guided by it.

Around each small pixel the edited colours are explained as an affine function of the source's: the guided filter's
model. What the source shows beyond the small size then passes through that function, as far as the function explains
the edit; where it does not, as with a new shape, the edit is enlarged and nothing of the source is added.

Convention:
    Pixel centres correspond as in `align_corners=False`. All tolerances are in 8-bit levels.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8
from numpy.typing import NDArray

from wave_ops.errors import WaveOpsError
from wave_ops.resize import resample, resize_frames

__all__ = ["upsample_edit"]

Frame: TypeAlias = UInt8[np.ndarray, "height width 3"]
Small: TypeAlias = UInt8[np.ndarray, "low_height low_width 3"]
Image: TypeAlias = Float32[np.ndarray, "rows columns channel"]
Matrices: TypeAlias = Float64[np.ndarray, "low_height low_width 3 3"]

_WINDOW: Final = 7
"""Side of the window in which the edit is explained, small pixels. 5 follows clean edits closer, 9 noisy ones."""
_NEAR: Final = 5
"""Side of the window that tells how well a pixel's neighbourhood is explained."""
_RIDGE: Final = 0.25
"""Variance under which a direction of colour says nothing about the edit: what rounding leaves, and little more."""
_NOISE: Final = 5.0
"""A root mean square that is not yet taken for a change: what a model's autoencoder adds."""
_TRUSTED: Final = (0.5, 0.9)
"""Where the explained share passes from the lower to the upper, the unexplained rest passes from kept to noise. Lower
values mend more of what a model slipped, and wash out more of what it drew."""


class _Explanation(NamedTuple):
    """An edit as a function of its source, on the small grid."""

    base: NDArray[np.float32]  # (low_height, low_width, 3): the edit without what is taken for noise
    gain: NDArray[np.float32]  # (low_height, low_width, 3, 3): how a colour difference of the source appears in it


def upsample_edit(source: Frame, edited: Small) -> Frame:
    """Bring an edited frame to its source's size: sharp where the source explains the edit, plainly enlarged elsewhere.

    With S the source at the edit's size, U enlargement and A the gain of the local affine model, the result is
    U(base) + A (source - U(S)), within the range of the edit's neighbourhood.

    Source: the local model is that of the guided filter (He, Sun and Tang, ECCV 2010), fitted at the small size as in
    the fast guided filter (He and Sun, arXiv:1505.00996). Deviates: only the detail that the small size lost passes
    through the model, by gains shrunk with the share of the edit that is explained, and the residual is kept unless
    that share is high; the ridge pulls towards the identity where the edit left the source as it was.

    Args:
        source: the source frame, uint8 (height, width, 3).
        edited: the edited frame, uint8 (low_height, low_width, 3); any size, also one larger than the source's.

    Returns:
        uint8 of the source's shape: the source itself where `edited` is `resize_frames` of it.

    Raises:
        WaveOpsError: a frame is not uint8 with three axes, three channels and at least one pixel.
    """
    for name, frame in (("source", source), ("edited", edited)):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise WaveOpsError(
                f"expected the {name} frame as uint8 (height, width, 3), got {frame.shape} of {frame.dtype}"
            )
    small = resize_frames(source[None], (edited.shape[0], edited.shape[1]))[0]
    size = (source.shape[0], source.shape[1])
    found = _explain(small.astype(np.float32), edited.astype(np.float32))
    detail = source - resample(small.astype(np.float32), size)
    # What the source shows beyond its small range the edit may too, with twice the contrast, and a halo nobody sees
    beyond = 2 * _beyond_range(source, small) + _NOISE
    result = np.empty_like(source)
    for channel in range(3):  # one at a time, for memory's sake
        plane = resample(np.ascontiguousarray(found.base[..., channel]), size)
        plane += np.einsum("hwk,hwk->hw", _linear(found.gain[..., channel, :], size), detail)
        lowest, highest = _local_range(np.ascontiguousarray(edited[..., channel]), size)
        result[..., channel] = np.clip(np.rint(np.clip(plane, lowest - beyond, highest + beyond)), 0, 255)
    return result


def _explain(small: Image, edited: Image) -> _Explanation:
    """Explain the edited colours by the source's in every window: edited = gain small + offset + residual."""
    # Deviations from the frame's mean colour: a variance is the small difference of two moments
    source, target = small - small.mean((0, 1)), edited - edited.mean((0, 1))
    spread = _covariance(source, source)
    gain = _gain(spread, _covariance(target, source), likeness=_likeness(small, edited))
    offset = _mean(target) - _applied(gain, _mean(source))
    residual = target - _applied(gain, source) - offset
    explained = np.einsum("hwij,hwjk,hwik->hw", gain, spread, gain, optimize=True) / 3 + _NOISE**2
    share = explained / (explained + _mean(residual**2, _NEAR).mean(2))
    noise = _smooth_step(share, *_TRUSTED)[..., None] * residual
    return _Explanation(
        base=(edited - noise).astype(np.float32), gain=(gain * share[..., None, None]).astype(np.float32)
    )


def _gain(spread: Matrices, joint: Matrices, *, likeness: Float64[np.ndarray, "low_height low_width"]) -> Matrices:
    """Return the gains of least squares; a flat window, which tells none, keeps the source's detail if it is unedited.

    Without that an identical edit would lose the detail of flat regions, and a flat edit would take it on.
    """
    ridge = _RIDGE * np.eye(3)
    return np.asarray((joint + likeness[..., None, None] * ridge) @ _inverse(spread + ridge))


def _likeness(small: Image, edited: Image) -> Float64[np.ndarray, "low_height low_width"]:
    """Tell, 0 to 1, how far a window of the edit is the source itself, noise aside: of its colours and no flatter."""
    distance = _mean((edited - small) ** 2).mean(2, dtype=np.float64)
    flatter = np.minimum((_variance(edited) + _RIDGE) / (_variance(small) + _RIDGE), 1)
    return np.asarray(np.exp(-distance / _NOISE**2) * flatter)


def _variance(image: Image) -> Float64[np.ndarray, "low_height low_width"]:
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


def _applied(matrices: Matrices, colours: Image) -> Float64[np.ndarray, "low_height low_width 3"]:
    return np.asarray(np.einsum("hwij,hwj->hwi", matrices, colours))


def _mean(image: Float[np.ndarray, "..."], side: int = _WINDOW) -> NDArray[np.float32]:
    """Average over the window around each pixel, mirrored at the border."""
    averaged: NDArray[np.float32] = cv2.blur(
        np.ascontiguousarray(image, np.float32), (side, side), borderType=cv2.BORDER_REFLECT_101
    )
    return averaged


def _smooth_step(x: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Rise from 0 at `low` to 1 at `high` without a kink: a threshold would flicker."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _beyond_range(source: Frame, small: Small) -> Float32[np.ndarray, "height width"]:
    """How far the source leaves its own range at the small size, in the channel where it leaves it furthest."""
    height, width, _ = source.shape
    beyond = np.zeros((height, width), np.float32)
    for channel in range(3):
        plane = source[..., channel]
        lowest, highest = _local_range(np.ascontiguousarray(small[..., channel]), (height, width))
        np.maximum(beyond, np.maximum(plane - highest, lowest - plane), out=beyond)
    return beyond


def _local_range(
    plane: UInt8[np.ndarray, "low_height low_width"], size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest value of each pixel and its eight neighbours, enlarged."""
    square = np.ones((3, 3), np.uint8)
    return _linear(cv2.erode(plane, square), size), _linear(cv2.dilate(plane, square), size)


def _linear(image: NDArray[np.uint8] | NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarge without overshoot."""
    enlarged: NDArray[np.float32] = cv2.resize(
        np.ascontiguousarray(image, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR
    )
    return enlarged
