"""Image pyramids for patch synthesis: the sizes of the levels, reduction by area and bilinear enlargement."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["enlarge", "pyramid_sizes", "shrink"]

Images = Float[Tensor, "batch channel height width"]
Resized = Float[Tensor, "batch channel new_height new_width"]


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
        count, new = images.shape[dim], size[dim - 2]
        scale = count / new
        start = torch.arange(new, dtype=torch.float64, device=images.device) * scale
        covered = [start.floor() + k for k in range(ceil(scale) + 1)]
        overlaps = [torch.minimum(pixel + 1, start + scale) - torch.maximum(pixel, start) for pixel in covered]
        images = _weighted_sum(images, dim, covered, [overlap.clamp(min=0) / scale for overlap in overlaps])
    return images


def enlarge(images: Images, size: tuple[int, int]) -> Resized:
    """Resize images to a larger size, bilinear, with pixel centres as for `align_corners=False`.

    Args:
        images: any unit.
        size: the new (height, width), neither side smaller than before.
    """
    for dim in (3, 2):
        count, new = images.shape[dim], size[dim - 2]
        place = torch.arange(new, dtype=torch.float64, device=images.device)
        place = ((place + 0.5) * (count / new) - 0.5).clamp(min=0).to(images.dtype)
        low = place.floor()
        weight = place - low
        images = _weighted_sum(images, dim, [low, low + 1], [1 - weight, weight])
    return images


def _weighted_sum(images: Images, dim: int, pixels: Sequence[Tensor], weights: Sequence[Tensor]) -> Resized:
    """Sum pixels along an axis with weights; a pixel past the end is the last one.

    Rounded after each product and each sum, which a matrix product or `interpolate` does not always do: every device
    computes the same bits, and coordinates halfway between two pixels are rounded to the same one.
    """
    last = images.shape[dim] - 1
    total: Tensor | None = None
    for pixel, weight in zip(pixels, weights, strict=True):
        weight = weight.to(images.dtype) if dim == 3 else weight.to(images.dtype)[:, None]
        term = images.index_select(dim, pixel.long().clamp(max=last)) * weight
        total = term if total is None else total + term
    return images if total is None else total
