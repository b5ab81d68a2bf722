"""Restores source detail that patch synthesis loses."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from wave_ops.guided_filter import NEAR, NOISE, RIDGE, WINDOW
from wave_ops.propagation.guides import mirror_pad

__all__ = ["restore_detail"]

Images = Float[Tensor, "batch 3 height width"]
Padded = Float64[Tensor, "batch 3 padded_height padded_width"]
Colours = Float64[Tensor, "batch 3 height width"]
Matrices = Float64[Tensor, "batch 3 3 height width"]
Maps = Float64[Tensor, "batch height width"]

_TRUSTED: Final = (0.95, 0.995)
"""Explained fractions of the variance: at the lower one no detail is restored, at the upper one all of it."""
_BAND: Final = 32
"""Rows computed at a time on a CPU, so that the intermediate planes stay in its cache."""
_MARGIN: Final = WINDOW // 2 + NEAR // 2
_UPPER: Final = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Row and column of the six different elements of a symmetric 3 x 3 matrix."""


def restore_detail(images: Images, *, seen: Images, frames: Images) -> Images:
    """Add to synthesised frames the source detail that their patches lack, mapped by the edit around each pixel.

    Patches are placed at whole pixels of the keyframe, so subpixel edges, new light and fine noise of the frame are
    missing. The missing detail, `frames` - `seen`, is mapped by the local affine function of `seen` that explains
    `images`, where it explains nearly all of the variance. Structure of the edit that the source lacks (a texture, a
    shape, an outline) is not explained by such a function, and is left as painted.

    Deviates from WAVE (ECCV 2024), which has no such step. The model is the one of `wave_ops.guided_filter`, here in
    torch and double precision.

    Args:
        images: the synthesised frames, 8-bit units.
        seen: the same patches, voted from the keyframe's source frame.
        frames: the source frames.
    """
    restored = torch.empty_like(images)
    source, edited = mirror_pad(seen, _MARGIN), mirror_pad(images, _MARGIN)
    height = images.shape[2]
    band = _BAND if images.device.type == "cpu" else height
    for top in range(0, height, band):
        rows = slice(top, min(top + band, height))
        padded = slice(rows.start, rows.stop + 2 * _MARGIN)
        gain, explained = _local_affine(source[:, :, padded].double(), edited[:, :, padded].double())
        t = ((explained - _TRUSTED[0]) / (_TRUSTED[1] - _TRUSTED[0])).clamp_(0, 1)
        trust = explained * (t * t * (3 - 2 * t))
        missing = _apply(gain, (frames[:, :, rows] - seen[:, :, rows]).double())
        restored[:, :, rows] = (images[:, :, rows] + missing.mul_(trust[:, None])).clamp_(0, 255)
    return restored


class _Moments(NamedTuple):
    """Moments of source and edit over the window around each pixel."""

    source: Tensor  # (batch, 3, ...): mean
    edited: Tensor  # (batch, 3, ...): mean
    spread: Tensor  # (batch, 6, ...): covariance of the source, its `_UPPER` elements
    joint: Tensor  # (batch, 3, 3, ...): covariance of edit and source
    source_variance: Tensor  # (batch, ...): mean over the channels
    edited_variance: Tensor
    distance: Tensor  # (batch, ...): mean squared difference of both


def _local_affine(source: Padded, edited: Padded) -> tuple[Matrices, Maps]:
    """Fit edited = gain source + offset in the window around each pixel.

    Args:
        source: padded by `_MARGIN` on each side.
        edited: likewise.

    Returns:
        The gain of each pixel, and the fraction of the edit's variance around it that is explained, 0 to 1.
    """
    moments = _moments(source, edited)
    gain = _fit(moments)
    source, edited = (_cropped(image, WINDOW // 2) for image in (source, edited))
    residual = edited - moments.edited - _apply(gain, source - moments.source)
    unexplained = _window_mean(residual.square().sum(1) / 3, NEAR)
    gain, spread = (_cropped(values, NEAR // 2) for values in (gain, moments.spread))
    explained = (_multiply(gain, _symmetric(spread)) * gain).sum((1, 2)) / 3 + NOISE**2
    return gain, explained / (explained + unexplained)


def _moments(source: Padded, edited: Padded) -> _Moments:
    """Return the moments, from one pass over all products."""
    products = (
        source,
        edited,
        torch.stack([source[:, i] * source[:, j] for i, j in _UPPER], dim=1),
        (edited[:, :, None] * source[:, None]).flatten(1, 2),
        edited.square().sum(1, keepdim=True) / 3,
        (edited - source).square().sum(1, keepdim=True) / 3,
    )
    sizes = [planes.shape[1] for planes in products]
    means = _window_mean(torch.cat(products, dim=1), WINDOW).split(sizes, dim=1)
    mean_source, mean_edited, squares, joint, square, distance = means
    spread = squares - torch.stack([mean_source[:, i] * mean_source[:, j] for i, j in _UPPER], dim=1)
    return _Moments(
        source=mean_source,
        edited=mean_edited,
        spread=spread,
        joint=joint.unflatten(1, (3, 3)) - mean_edited[:, :, None] * mean_source[:, None],
        source_variance=(spread[:, [0, 3, 5]].sum(1) / 3).clamp_(min=0),
        edited_variance=(square[:, 0] - mean_edited.square().sum(1) / 3).clamp_(min=0),
        distance=distance[:, 0],
    )


def _fit(moments: _Moments) -> Matrices:
    """Return the gains of least squares with a ridge.

    Flat windows do not determine a gain. The ridge makes it the identity where the edit is like the source, so that
    unedited regions keep their detail, and 0 elsewhere, so that a flat edit does not take on the source's.
    """
    xx, xy, xz, yy, yz, zz = moments.spread.unbind(1)
    xx, yy, zz = xx + RIDGE, yy + RIDGE, zz + RIDGE
    # The inverse of a symmetric matrix in closed form: its adjugate over its determinant
    adjugate = (
        *(yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy),
        *(xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy),
    )
    determinant = xx * adjugate[0] + xy * adjugate[1] + xz * adjugate[2]
    inverse = _symmetric(torch.stack(adjugate, dim=1) / determinant[:, None])
    joint = moments.joint.clone()
    joint.diagonal(dim1=1, dim2=2).add_(RIDGE * _likeness(moments)[..., None])
    return _multiply(joint, inverse)


def _likeness(moments: _Moments) -> Maps:
    """Return, 0 to 1, how far a window of the edit is the source with noise: of its colours, and no flatter."""
    flatter = ((moments.edited_variance + RIDGE) / (moments.source_variance + RIDGE)).clamp_(max=1)
    return torch.exp(moments.distance / -(NOISE**2)).mul_(flatter)


def _cropped(images: Tensor, margin: int) -> Tensor:
    return images[..., margin:-margin, margin:-margin]


def _symmetric(upper: Float64[Tensor, "batch 6 height width"]) -> Matrices:
    """Return symmetric matrices from their `_UPPER` elements."""
    matrices: Tensor = upper[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].unflatten(1, (3, 3))
    return matrices


def _multiply(a: Matrices, b: Matrices) -> Matrices:
    # A running sum: one broadcast product would need three times the memory.
    product: Tensor = a[:, :, 0, None] * b[:, None, 0]
    for i in (1, 2):
        product.addcmul_(a[:, :, i, None], b[:, None, i])
    return product


def _apply(matrices: Matrices, colours: Colours) -> Colours:
    return (matrices * colours[:, None]).sum(2)


def _window_mean(planes: Float64[Tensor, "*batch height width"], side: int) -> Tensor:
    """Return the mean over each window of `side` x `side` pixels that fits into the planes."""
    return _window_sum(_window_sum(planes, side, dim=-2), side, dim=-1).mul_(1 / side**2)


def _window_sum(planes: Tensor, side: int, *, dim: int) -> Tensor:
    """Sum every `side` neighbouring values along an axis.

    From sums of half the length: 7 = 3 + 3 + 1 takes four additions. torch's average pooling adds the 49 values of each
    window one by one on a CPU, and takes several times as long.
    """
    if side == 1:
        return planes
    half = side // 2
    halves = _window_sum(planes, half, dim=dim)
    count = planes.shape[dim] - side + 1
    total = halves.narrow(dim, 0, count) + halves.narrow(dim, half, count)
    return total.add_(planes.narrow(dim, side - 1, count)) if side % 2 else total
