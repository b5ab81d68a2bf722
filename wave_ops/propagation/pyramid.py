"""Image pyramids for patch synthesis: the sizes of the levels, reduction by area and bilinear enlargement."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["enlarge", "pyramid_sizes", "shrink"]

Images = Float[Tensor, "batch channel height width"]
Resized = Float[Tensor, "batch channel new_height new_width"]


class _Term(NamedTuple):
    """For each new pixel along an axis, one of the pixels that it is a weighted sum of."""

    pixel: Tensor  # int64 (new)
    weight: Tensor  # (new)


def pyramid_sizes(size: tuple[int, int], coarsest_side: int) -> tuple[tuple[int, int], ...]:
    """Halve the size, rounding up, while the shorter side stays at least `coarsest_side`; finest first."""
    sizes = [size]
    while min(half := tuple((side + 1) // 2 for side in sizes[-1])) >= coarsest_side:
        sizes.append((half[0], half[1]))
    return tuple(sizes)


def shrink(images: Images, size: tuple[int, int]) -> Resized:
    """Resize images to a smaller size: each new pixel is the mean over the area that it covers.

    Args:
        images: any unit.
        size: the new (height, width), neither side larger than before.
    """
    height, width = images.shape[2:]
    if (height, width) == size:
        return images
    if (height, width) == (2 * size[0], 2 * size[1]):
        return F.avg_pool2d(images, 2)
    for dim in (3, 2):
        images = _weighted_sum(images, dim, _means(images.shape[dim], size[dim - 2], images.dtype, images.device))
    return images


def enlarge(images: Images, size: tuple[int, int]) -> Resized:
    """Resize images to a larger size, bilinear, with pixel centres as for `align_corners=False`.

    Args:
        images: any unit.
        size: the new (height, width), neither side smaller than before.
    """
    for dim in (3, 2):
        images = _weighted_sum(images, dim, _mixtures(images.shape[dim], size[dim - 2], images.dtype, images.device))
    return images


# Computing the terms takes more kernels than using them: they are kept for as many sizes as a few clips have.
@lru_cache(maxsize=128)
def _means(count: int, new: int, dtype: torch.dtype, device: torch.device) -> tuple[_Term, ...]:
    """Return the terms that reduce an axis from `count` to `new` pixels by area."""
    scale = count / new
    start = torch.arange(new, dtype=torch.float64) * scale
    covered = start.floor() + torch.arange(ceil(scale) + 1, dtype=torch.float64)[:, None]
    overlap = torch.minimum(covered + 1, start + scale) - torch.maximum(covered, start)
    return _terms(covered, overlap.clamp(min=0) / scale, count, dtype=dtype, device=device)


@lru_cache(maxsize=128)
def _mixtures(count: int, new: int, dtype: torch.dtype, device: torch.device) -> tuple[_Term, ...]:
    """Return the terms that enlarge an axis from `count` to `new` pixels, bilinear."""
    place = ((torch.arange(new, dtype=torch.float64) + 0.5) * (count / new) - 0.5).clamp(min=0).to(dtype)
    low = place.floor()
    weight = place - low
    return _terms(torch.stack((low, low + 1)), torch.stack((1 - weight, weight)), count, dtype=dtype, device=device)


def _terms(
    pixels: Tensor, weights: Tensor, count: int, *, dtype: torch.dtype, device: torch.device
) -> tuple[_Term, ...]:
    """Return one term per row of pixels, of `count`, and weights, on a device; a pixel past the end is the last one."""
    moved = pixels.long().clamp(max=count - 1).to(device), weights.to(device=device, dtype=dtype)
    return tuple(map(_Term, *moved))


def _weighted_sum(images: Images, dim: int, terms: tuple[_Term, ...]) -> Resized:
    """Sum pixels along an axis with weights.

    Rounded after each product and each sum, which a matrix product or `interpolate` does not always do: every device
    computes the same bits, and coordinates halfway between two pixels are rounded to the same one.
    """
    total: Tensor | None = None
    for pixel, weight in terms:
        term = images.index_select(dim, pixel) * (weight if dim == 3 else weight[:, None])
        total = term if total is None else total + term
    return images if total is None else total
