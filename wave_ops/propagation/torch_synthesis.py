"""Guided patch synthesis in torch, on a GPU or the CPU: all pixels of a batch of frames at once.

Guides, pyramid, starts and rounds are those of `wave_ops.propagation.synthesis`; the search differs, so the results
differ slightly.

The number of kernels depends on the size of the images only through the number of pyramid levels. Both directions of
an interval are one batch, so K frames from keyframe to keyframe take at most (K - 1) x levels x rounds rounds, each of
one pass per sweep of the settings. With Triton a round of one sweep is about 60 kernels, and the rest of a frame about
1500: at most 31 thousand for 8 frames of 512 x 512 pixels. Levels end early where nothing is left to improve.

Convention:
    Images are float32 (batch, channel, height, width) in 8-bit units; positions in the keyframe (batch, 2, height,
    width) are x then y in the keyframe's pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wave_ops.propagation.guides import Guides
from wave_ops.propagation.patch_match import PATCH, RADIUS
from wave_ops.propagation.pyramid import pyramid_sizes, shrink
from wave_ops.propagation.settings import PropagationSettings
from wave_ops.propagation.synthesis import Synthesis, annealing
from wave_ops.propagation.torch_grid import Grid
from wave_ops.propagation.torch_search import (
    Matching,
    match_errors,
    search,
    try_candidates,
    vote,
    vote_image,
)

__all__ = ["Exemplars", "synthesise"]

Images = Float[Tensor, "batch 3 height width"]


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
    """The keyframes' colour guide, in the form of `Matching.style`."""
    settings: PropagationSettings

    @classmethod
    def build(cls, style: Images, guides: Guides, *, settings: PropagationSettings) -> Exemplars:
        """Pack edited keyframes and their guides for `synthesise`."""
        sizes = pyramid_sizes((style.shape[2], style.shape[3]), settings.coarsest_side)
        images = _pyramid(_stack(style, guides, settings), sizes)
        seeds = [settings.seed + 7919 * index for index in range(len(sizes))]
        levels = tuple(_level(image, seed) for image, seed in zip(images, seeds, strict=True))
        return cls(levels, _vote_table(guides.colour), settings)


def synthesise(
    exemplars: Exemplars, guides: Guides, *, starts: Sequence[Float[Tensor, "batch 2 height width"]] = ()
) -> Synthesis:
    """Paint the frames described by `guides` from patches of the exemplars, with the exemplars' settings.

    Args:
        exemplars: the edited keyframes.
        guides: the targets' guides; the temporal guide is also the first guess.
        starts: candidates for each pixel's match; the search starts from the first and tries the others. Without any
            it starts from random matches.
    """
    sizes = [level.grid.size for level in exemplars.levels]
    targets = _pyramid(_stack(guides.temporal, guides, exemplars.settings), sizes)
    found: list[Matching] = []
    for level, target in zip(reversed(exemplars.levels), reversed(targets), strict=True):
        fields = _at_size(starts, level.grid)
        fields += [_enlarged(coarser, level.grid) for coarser in found]
        found = [_matched(level, target, fields or [level.grid.random_places()], exemplars.settings)]
    return _result(found[0], exemplars)


def _matched(level: _Level, target: Tensor, fields: Sequence[Tensor], settings: PropagationSettings) -> Matching:
    """Match and paint a target of one size, beginning with the first of the fields of matches."""
    # A patch that every pixel around it uses once has a usage of 25 * 25.
    penalty = settings.uniformity * 3 / settings.style_weight / PATCH**4
    matching = Matching(level.grid, level.packed, level.style, _packed(target), fields[0], penalty)
    _search_and_vote(matching, fields[1:], settings)
    return matching


def _search_and_vote(m: Matching, candidates: Sequence[Tensor], settings: PropagationSettings) -> None:
    """Run one level: alternate between better matches for the image and a better image for the matches."""
    search_above = settings.search_above * 3 / settings.style_weight
    everywhere = torch.ones_like(m.nearest, dtype=torch.bool)
    if candidates:
        try_candidates(m, torch.cat(list(candidates), dim=1))
    vote(m)
    match_errors(m, everywhere)
    active, full_penalty = everywhere, m.uniformity_penalty
    for round_index in range(settings.rounds):
        before = m.nearest
        penalty, max_radius = annealing(round_index, settings, side=max(m.grid.size))
        m.set_penalty(full_penalty * penalty)
        for sweep_index in range(settings.sweeps):
            number = round_index * settings.sweeps + sweep_index
            search(m, number, active, search_above=search_above, max_radius=max_radius)
        vote(m)
        active = m.grid.tiles_around(m.nearest != before)
        if not active.any():
            break
        match_errors(m, active)


def _result(m: Matching, exemplars: Exemplars) -> Synthesis:
    height, width = m.grid.size
    image = m.target[:, RADIUS:-RADIUS, RADIUS:-RADIUS, :3].movedim(-1, 1).contiguous()
    error = m.error.view(-1, height, width) * (exemplars.settings.style_weight / 3)
    rows, columns = m.grid.coordinates(m.nearest)
    matches = torch.cat((columns, rows), dim=1).view(-1, 2, height, width).float()
    return Synthesis(image, error, matches, vote_image(m, exemplars.colour))


def _stack(style: Images, guides: Guides, settings: PropagationSettings) -> Float[Tensor, "batch 16 height width"]:
    """Concatenate style and guides to 16 channels, scaled so that plain squares carry the weights."""
    weights = (settings.colour_weight, settings.edge_weight, settings.temporal_weight, settings.position_weight)
    scaled = [guide * (weight / settings.style_weight) ** 0.5 for guide, weight in zip(guides, weights, strict=True)]
    return torch.cat((style, *scaled, torch.zeros_like(style[:, :1])), dim=1)


def _pyramid(stack: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Return the stack at every size, each reduced from the one before by area."""
    images = [stack]
    for size in sizes[1:]:
        images.append(shrink(images[-1], size))
    return images


def _level(images: Tensor, seed: int) -> _Level:
    grid = Grid(len(images), (images.shape[2], images.shape[3]), seed=seed, device=images.device)
    return _Level(grid, _packed(images), _vote_table(images[:, :3]))


def _packed(images: Tensor) -> Tensor:
    return F.pad(images, [RADIUS] * 4, mode="replicate").movedim(1, -1).contiguous()


def _vote_table(images: Tensor) -> Tensor:
    """Return images in the form of `Matching.style`: a row per place with its colour and a weight."""
    padded = F.pad(images, [RADIUS] * 4, mode="replicate")
    table = torch.cat((padded, torch.ones_like(padded[:, :1])), dim=1).movedim(1, -1).reshape(-1, 4)
    return F.pad(table, (0, 0, 0, PATCH * padded.shape[3]))


def _at_size(starts: Sequence[Tensor], grid: Grid) -> list[Tensor]:
    """Return fields of positions in the keyframe as matches on a grid of another size, each (batch, 1, pixel)."""
    if not starts:
        return []
    height, width = starts[0].shape[2:]
    x, y = shrink(torch.cat(list(starts)), grid.size).unflatten(0, (len(starts), -1)).flatten(3).split(1, dim=2)
    rows = (y + 0.5) * (grid.size[0] / height) - 0.5
    columns = (x + 0.5) * (grid.size[1] / width) - 0.5
    return list(grid.place(rows, columns))


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
