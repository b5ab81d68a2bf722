"""What frames show and the patches that paint them do not, on a torch device.

The twin of `wave_ops.propagation.detail` and `wave_ops.guided_filter`, where each step is explained; in double
precision throughout. Images are (batch, 3, height, width) in 8-bit units, matrices (batch, row, column, height, width).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wave_ops.guided_filter import NEAR, NOISE, RIDGE, WINDOW
from wave_ops.propagation.detail import TRUSTED

__all__ = ["explained_gain", "restore_detail"]

Images = Float[Tensor, "batch 3 height width"]
Maps = Float[Tensor, "batch 1 height width"]
Matrices = Float[Tensor, "batch 3 3 height width"]


def restore_detail(images: Images, *, seen: Images, frame: Images) -> Images:
    """Return synthesised frames with what their patches miss of the source frames, as the edit would show it."""
    gain, share = explained_gain(seen.double(), images.double())
    trust = ((share - TRUSTED[0]) / (TRUSTED[1] - TRUSTED[0])).clamp_(0, 1)
    missed = _applied(gain, (frame - seen).double()) * (trust * trust * (3 - 2 * trust))
    return (images + missed).clamp_(0, 255).to(images.dtype)


def explained_gain(source: Images, edited: Images) -> tuple[Matrices, Maps]:
    """Return how a colour difference of the source appears in the edit, times the explained share, and that share."""
    before, after = (image - image.mean((2, 3), keepdim=True) for image in (source, edited))
    spread = _covariance(before, before)
    gain = _gain(spread, _covariance(after, before), likeness=_likeness(source, edited))
    residual = after - _mean(after) - _applied(gain, before - _mean(before))
    explained = (_product(gain, spread) * gain).sum((1, 2))[:, None] / 3 + NOISE**2
    share = explained / (explained + _mean(residual**2, NEAR).mean(1, keepdim=True))
    return gain * share[:, None], share


def _gain(spread: Matrices, joint: Matrices, *, likeness: Maps) -> Matrices:
    ridge = RIDGE * torch.eye(3, dtype=spread.dtype, device=spread.device)[..., None, None]
    return _product(joint + likeness[:, None] * ridge, _inverse(spread + ridge))


def _likeness(source: Images, edited: Images) -> Maps:
    distance = _mean((edited - source) ** 2).mean(1, keepdim=True)
    flatter = ((_variance(edited) + RIDGE) / (_variance(source) + RIDGE)).clamp_(max=1)
    return torch.exp(-distance / NOISE**2) * flatter


def _variance(images: Images) -> Maps:
    centred = images - images.mean((2, 3), keepdim=True)
    return (_mean(centred**2) - _mean(centred) ** 2).mean(1, keepdim=True).clamp_(min=0)


def _covariance(a: Images, b: Images) -> Matrices:
    joint = _mean((a[:, :, None] * b[:, None]).flatten(1, 2)).unflatten(1, (3, 3))
    covariance: Tensor = joint - _mean(a)[:, :, None] * _mean(b)[:, None]
    return covariance


def _inverse(m: Matrices) -> Matrices:
    a, b, c = (torch.linalg.cross(m[:, (i + 1) % 3], m[:, (i + 2) % 3], dim=1) for i in range(3))
    determinant = (m[:, 0] * a).sum(1)
    inverse: Tensor = torch.stack((a, b, c), dim=2) / determinant[:, None, None]
    return inverse


def _product(a: Matrices, b: Matrices) -> Matrices:
    # A sum of three, so that nothing larger than the product is held.
    product: Tensor = a[:, :, 0, None] * b[:, None, 0]
    for i in (1, 2):
        product = product.addcmul(a[:, :, i, None], b[:, None, i])
    return product


def _applied(matrices: Matrices, colours: Images) -> Images:
    return (matrices * colours[:, None]).sum(2)


def _mean(images: Float[Tensor, "batch channel height width"], side: int = WINDOW) -> Tensor:
    return F.avg_pool2d(F.pad(images, [side // 2] * 4, mode="reflect"), side, stride=1)
