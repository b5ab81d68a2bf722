"""Guided patch synthesis on a torch device, for a batch of exemplars at once.

The twin of `wave_ops.propagation.synthesis`: the same stack, pyramid, starts and rounds, another search.

Convention:
    Images are float32 (batch, channel, height, width) in 8-bit units; places in the keyframe (batch, 2, height, width)
    are x then y in the keyframe's pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wave_ops.propagation.on_device.grid import PATCH, RADIUS, Grid
from wave_ops.propagation.on_device.search import Matching, match_errors, offer, search, shown, vote
from wave_ops.propagation.settings import PropagationSettings
from wave_ops.propagation.synthesis import pace, pyramid_sizes

__all__ = ["Exemplars", "Synthesis", "shrink", "synthesise"]


class _Level(NamedTuple):
    """The sources at one size of the pyramid; see `Matching`."""

    grid: Grid
    packed: Tensor
    style: Tensor


@dataclass(frozen=True, slots=True)
class Exemplars:
    """Edited keyframes and their guides, packed at every size of the pyramid, finest first."""

    levels: tuple[_Level, ...]
    colour: Tensor
    """The keyframes' colour guide, listed as the style of `Matching`."""
    settings: PropagationSettings

    @classmethod
    def build(cls, style: Tensor, guides: Sequence[Tensor], *, settings: PropagationSettings) -> Exemplars:
        """Pack edited keyframes and their guides (see `Guides`) for `synthesise`."""
        sizes = pyramid_sizes((style.shape[2], style.shape[3]), settings.coarsest_side)
        images = _pyramid(_stack(style, guides, settings), sizes)
        seeds = [settings.seed + 7919 * index for index in range(len(sizes))]
        levels = tuple(_level(image, seed) for image, seed in zip(images, seeds, strict=True))
        return cls(levels, _listed(guides[0]), settings)


@dataclass(frozen=True, slots=True)
class Synthesis:
    """Synthesised frames, how well each pixel is matched, and by what; see `wave_ops.propagation.Synthesis`."""

    image: Tensor
    """(batch, 3, height, width), 8-bit units."""
    error: Tensor
    """(batch, height, width)"""
    matches: Tensor
    """(batch, 2, height, width), x then y."""
    seen: Tensor
    """(batch, 3, height, width), 8-bit units: what the same patches show of the keyframes' colour guide."""


def synthesise(exemplars: Exemplars, guides: Sequence[Tensor], *, starts: Sequence[Tensor] = ()) -> Synthesis:
    """Paint the frames that `guides` describe out of patches of the exemplars, with the exemplars' settings.

    Args:
        exemplars: the edited keyframes.
        guides: the targets' guides; the temporal guide is also the first guess.
        starts: where each pixel's match may lie; the first is where the search starts, the others are offered.
            Without any it starts at random.
    """
    sizes = [level.grid.size for level in exemplars.levels]
    targets = _pyramid(_stack(guides[2], guides, exemplars.settings), sizes)
    found: list[Matching] = []
    for level, target in zip(reversed(exemplars.levels), reversed(targets), strict=True):
        fields = [_at_size(start, level.grid) for start in starts]
        fields += [_enlarged(coarser, level.grid) for coarser in found]
        found = [_matched(level, target, fields or [level.grid.random_places()], exemplars.settings)]
    return _result(found[0], exemplars)


def _matched(level: _Level, target: Tensor, fields: Sequence[Tensor], settings: PropagationSettings) -> Matching:
    """Match and paint a target of one size, beginning with the first of the fields of matches."""
    # A patch that every pixel around it uses once has a use of 25 * 25.
    price = settings.uniformity * 3 / settings.style_weight / PATCH**4
    matching = Matching(level.grid, level.packed, level.style, _packed(target), fields[0], price)
    _search_and_vote(matching, fields[1:], settings)
    return matching


def _search_and_vote(m: Matching, offers: Sequence[Tensor], settings: PropagationSettings) -> None:
    """Run one level: alternate between better matches for the image and a better image for the matches."""
    search_above = settings.search_above * 3 / settings.style_weight
    everywhere = torch.ones_like(m.nearest, dtype=torch.bool)
    if offers:
        offer(m, torch.cat(list(offers), dim=1))
    vote(m)
    match_errors(m, everywhere)
    active, use_price = everywhere, m.use_price
    for round_index in range(settings.rounds):
        before = m.nearest
        price, reach = pace(round_index, settings, side=max(m.grid.size))
        m.ask(use_price * price)
        for sweep_index in range(settings.sweeps):
            number = round_index * settings.sweeps + sweep_index
            search(m, number, active, search_above=search_above, reach=reach)
        vote(m)
        active = m.grid.tiles_beside(m.nearest != before)
        if match_errors(m, active) == 0:
            break


def _result(m: Matching, exemplars: Exemplars) -> Synthesis:
    height, width = m.grid.size
    image = m.target[:, RADIUS:-RADIUS, RADIUS:-RADIUS, :3].movedim(-1, 1).contiguous()
    error = m.error.view(-1, height, width) * (exemplars.settings.style_weight / 3)
    rows, columns = m.grid.coordinates(m.nearest)
    matches = torch.cat((columns, rows), dim=1).view(-1, 2, height, width).float()
    return Synthesis(image, error, matches, shown(m, exemplars.colour))


def _stack(style: Tensor, guides: Sequence[Tensor], settings: PropagationSettings) -> Tensor:
    """Put style and guides side by side, 16 channels, scaled so that plain squares carry the weights."""
    weights = (settings.colour_weight, settings.edge_weight, settings.temporal_weight, settings.position_weight)
    scaled = [guide * (weight / settings.style_weight) ** 0.5 for guide, weight in zip(guides, weights, strict=True)]
    return torch.cat((style, *scaled, torch.zeros_like(style[:, :1])), dim=1)


def _pyramid(stack: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Return the stack at every size, each from the one before, by area."""
    images = [stack]
    for size in sizes[1:]:
        images.append(shrink(images[-1], size))
    return images


def shrink(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (batch, channel, height, width) images to a smaller size: means over the area that a pixel covers."""
    height, width = images.shape[2:]
    if (height, width) == size:
        return images
    if (height, width) == (2 * size[0], 2 * size[1]):
        return F.avg_pool2d(images, 2)
    rows, columns = (_cover(side, new, images) for side, new in ((height, size[0]), (width, size[1])))
    return rows @ images @ columns.T


def _cover(count: int, new: int, like: Tensor) -> Tensor:
    """Return (new, count): the share that each old pixel has in each new one."""
    edge = torch.arange(count, dtype=like.dtype, device=like.device)
    start = torch.arange(new, dtype=like.dtype, device=like.device)[:, None] * (count / new)
    overlap = torch.minimum(edge + 1, start + count / new) - torch.maximum(edge, start)
    return overlap.clamp_(min=0) / (count / new)


def _level(images: Tensor, seed: int) -> _Level:
    grid = Grid(len(images), (images.shape[2], images.shape[3]), seed=seed, device=images.device)
    return _Level(grid, _packed(images), _listed(images[:, :3]))


def _packed(images: Tensor) -> Tensor:
    return F.pad(images, [RADIUS] * 4, mode="replicate").movedim(1, -1).contiguous()


def _listed(images: Tensor) -> Tensor:
    padded = F.pad(images, [RADIUS] * 4, mode="replicate")
    listed = torch.cat((padded, torch.ones_like(padded[:, :1])), dim=1).movedim(1, -1).reshape(-1, 4)
    return F.pad(listed, (0, 0, 0, PATCH * padded.shape[3]))


def _at_size(start: Tensor, grid: Grid) -> Tensor:
    """Return matches on a grid of another size, (batch, 1, pixel); positions are in pixels of their own grid."""
    height, width = start.shape[2:]
    x, y = shrink(start, grid.size).flatten(2).split(1, dim=1)
    rows = (y + 0.5) * (grid.size[0] / height) - 0.5
    columns = (x + 0.5) * (grid.size[1] / width) - 0.5
    return grid.place(rows, columns)


def _enlarged(found: Matching, grid: Grid) -> Tensor:
    """Return the field of a coarser level on a finer grid: each pixel's offset is its parent's, rescaled."""
    coarse, (height, width) = found.grid, grid.size
    parent_row = ((grid.rows * 2 + 1) * coarse.size[0] // (2 * height)).clamp_(max=coarse.size[0] - 1)
    parent_column = ((grid.columns * 2 + 1) * coarse.size[1] // (2 * width)).clamp_(max=coarse.size[1] - 1)
    rows, columns = coarse.coordinates(found.nearest.index_select(2, parent_row * coarse.size[1] + parent_column))
    return grid.place(
        grid.rows + (rows - parent_row) * (height / coarse.size[0]),
        grid.columns + (columns - parent_column) * (width / coarse.size[1]),
    )
