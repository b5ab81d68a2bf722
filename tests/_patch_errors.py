"""Patch errors of candidate matches, written plainly: what `torch_search` and `triton_errors` are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from wave_ops.propagation.patch_match import CHANNELS
from wave_ops.propagation.torch_grid import Grid
from wave_ops.propagation.torch_search import Matching

__all__ = ["make_matching", "plain_errors_below", "some_candidates", "some_limits"]


def plain_errors_below(
    source: Tensor,
    target: Tensor,
    candidates: Tensor,
    limit: Tensor,
    *,
    own_place: Tensor,
    patch: int,
    row_fraction: float,
) -> Tensor:
    """Return what `triton_errors.errors_below` does."""
    near, stride = torch.arange(patch, device=source.device) - patch // 2, source.shape[2]
    offsets = near[:, None] * stride + near
    compared = limit > 0
    one, other = (
        image.flatten(0, 2)[places.where(compared, 2 * stride + 2)[..., None, None] + offsets]
        for image, places in ((source, candidates), (target, own_place.expand_as(candidates)))
    )
    by_row = (one - other).square().sum(dim=(-2, -1))
    kept = compared & (by_row[..., patch // 2] < row_fraction * limit)
    return by_row.sum(dim=-1).where(kept, torch.inf)


def make_matching(size: tuple[int, int], *, seed: int = 0, device: str = "cpu") -> Matching:
    """Return a search between two pairs of random images, from random matches."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, size[0] + 4, size[1] + 4, CHANNELS)
    source, target = (torch.rand(shape, generator=generator).mul_(255).to(device) for _ in range(2))
    grid = Grid(2, size, seed=seed, device=torch.device(device))
    style = torch.zeros(source.numel() // CHANNELS + 5, 4, device=device)
    return Matching(grid, source, style, target, grid.random_places(), 1.0)


def some_candidates(grid: Grid, count: int) -> Tensor:
    """Return random candidates; the first ones are at the corners."""
    generator = torch.Generator().manual_seed(count)
    rows, columns = (
        torch.randint(side, (2, count, grid.pixels), generator=generator).to(grid.device) for side in grid.size
    )
    rows[..., :2], rows[..., 2:4] = 0, grid.size[0] - 1
    columns[..., 0:4:2], columns[..., 1:4:2] = 0, grid.size[1] - 1
    return grid.place(rows, columns)


def some_limits(candidates: Tensor) -> Tensor:
    """Return limits of which some are below 0, some infinite, and some drop a candidate after its middle row."""
    generator = torch.Generator().manual_seed(1)
    # A pair of random pixels differs by 255^2 / 6 in the mean; a row has 80, and half of the limit drops it.
    limit = (torch.rand(candidates.shape, generator=generator) - 0.25) * (255**2 / 6 * 80 * 4)
    limit[..., ::5], limit[..., 1::7] = torch.inf, 0.0
    return limit.to(candidates.device)
