"""Patch search in torch: all pixels of all exemplars of a batch at once.

The packed layout, the patch error and the uniformity penalty are those of `wave_ops.propagation.patch_match`, but in
floats. Instead of scanning from pixel to pixel, each pass compares for every pixel the matches of several neighbours
and several random matches at once, on the state left by the pass before (PatchMatch, Barnes et al. 2009; neighbours at
several distances after jump flooding, Rong and Tan 2006).

Patch errors are computed by `triton_errors` on a GPU with Triton, and by torch elsewhere.

Only integers are summed in an order that differs from run to run, and their sum does not depend on it: a device returns
the same bytes every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

from wave_ops.propagation.patch_match import CHANNELS, PATCH, RADIUS
from wave_ops.propagation.torch_grid import Grid

__all__ = ["Matching", "errors_below", "match_errors", "search", "try_candidates", "vote", "vote_image"]

_MAX_ROW_FRACTION = 0.5  # of the error to beat: a candidate with more than this in its middle row alone is dropped
_CPU_PAIRS = 2**9  # pairs of patches compared at once: on a CPU what stays in its cache
_GPU_PAIRS = 2**17  # and on a GPU what bounds the gathered memory to 0.5 GB


@dataclass(slots=True)
class Matching:
    """The state of one search: packed images and the nearest-neighbour fields between them; places as in `Grid`.

    Errors are in packed units: multiply by style weight / 3 for the units of the settings.
    """

    grid: Grid
    source: Tensor
    """(batch, height + 4, width + 4, 16)"""
    style: Tensor
    """(places and 5 more rows, 4): the source's style and a 1; the rows at the end are 0."""
    target: Tensor
    """As `source`; the style channels change with every vote."""
    nearest: Tensor
    """(batch, 1, pixel) int32: place in the source."""
    uniformity_penalty: float
    """Error per unit of usage."""
    error: Tensor = field(init=False)
    """(batch, 1, pixel): patch error of each match."""
    self_use_discount: Tensor = field(init=False)
    """The part of a candidate's penalty that is the pixel's own usage, indexed as `Grid.overlap`.

    -inf at the present match, so that it is never compared again.
    """

    def __post_init__(self) -> None:
        self.set_penalty(self.uniformity_penalty)
        self.error = torch.empty_like(self.nearest, dtype=torch.float32)
        match_errors(self, torch.ones_like(self.nearest, dtype=torch.bool))

    def set_penalty(self, uniformity_penalty: float) -> None:
        """Set the error per unit of usage."""
        self.uniformity_penalty = uniformity_penalty
        self.self_use_discount = self.grid.overlap * uniformity_penalty
        # Assigned by index, the number would be copied to a GPU, and the copy waits for all work before it.
        self.self_use_discount.select(0, len(self.self_use_discount) // 2).fill_(-torch.inf)


def match_errors(m: Matching, where: Tensor) -> None:
    """Compute the patch errors of the matches of some pixels, (batch, 1, pixel)."""
    if (kernel := _kernel(m.grid.device)) is not None:
        errors = _fused_errors(kernel, m, m.nearest, torch.where(where, torch.inf, 0.0))
        m.error = errors.where(where, m.error)
        return
    pixels = where.flatten().nonzero().squeeze(1)
    source, target = (places.flatten().index_select(0, pixels) for places in (m.nearest, m.grid.own_place))
    m.error.view(-1).index_copy_(0, pixels, _patch_errors(m, source, target, m.grid.patch_rows))


def search(m: Matching, number: int, active: Tensor, *, search_above: float, max_radius: int) -> None:
    """Try the matches of their neighbours, and random ones, for the active pixels.

    All pixels choose at once by the same penalties. Where these far exceed the errors, many pixels crowd onto a patch
    of low usage and leave it together in the next pass; the falling penalty of the schedule ends that.

    Args:
        m: the state.
        number: counts the passes of a search; each has other neighbours and other random numbers.
        active: (batch, 1, pixel), True where a better match may still be found.
        search_above: random matches are tried where the error is above this.
        max_radius: largest distance of random matches from the present match, pixels.
    """
    # An offset of 0 leads to the present match, which is never compared.
    random = m.nearest + m.grid.random_offsets(number, max_radius) * (m.error > search_above)
    try_candidates(m, torch.cat((m.grid.neighbour_matches(m.nearest, number), random), dim=1), active=active)


def try_candidates(m: Matching, candidates: Tensor, *, active: Tensor | None = None) -> None:
    """Match each (active) pixel to the candidate with the least error plus penalty, if that is less than now.

    Only pairs of patches that can win are compared, and after one row only those that are still likely to.

    Args:
        m: the state.
        candidates: (batch, candidate, pixel), places.
        active: (batch, 1, pixel); all pixels by default.
    """
    candidates = candidates.clamp(m.grid.first, m.grid.last)
    limit = _limits(m, candidates, active)
    errors = errors_below(m, candidates, limit)
    gain, best = (errors - limit).min(dim=1, keepdim=True)
    better = gain < 0
    m.error = torch.where(better, errors.gather(1, best), m.error)
    m.nearest = torch.where(better, candidates.gather(1, best), m.nearest)


def errors_below(m: Matching, candidates: Tensor, limit: Tensor) -> Tensor:
    """Return the patch errors of the candidates that may be below their limit, and infinity for the others.

    These are the candidates with a limit above 0, and with less than `_MAX_ROW_FRACTION` of it in their middle row.

    Args:
        m: the state.
        candidates: (batch, candidate, pixel), places.
        limit: (batch, candidate, pixel).
    """
    if (kernel := _kernel(m.grid.device)) is not None:
        return _fused_errors(kernel, m, candidates, limit)
    errors = torch.full_like(limit, torch.inf)
    compared, found = _compare(m, candidates, limit, (limit > 0).flatten().nonzero().squeeze(1))
    errors.view(-1).index_copy_(0, compared, found)
    return errors


def vote(m: Matching) -> None:
    """Set the target's style to the vote of the matches on the source's style."""
    image = F.pad(vote_image(m, m.style), [RADIUS] * 4, mode="replicate")
    m.target[..., :3] = image.movedim(1, -1)


def vote_image(m: Matching, table: Tensor) -> Tensor:
    """Return for each pixel the mean over the matched patches of all patches over it.

    Args:
        m: the state.
        table: the image to vote on, of the source's size, in the form of `Matching.style`.
    """
    grid = m.grid
    height, width = grid.size
    # Patches centred outside the image point to the zeros at the end of the table: their weight, its fourth column,
    # is 0 too.
    nowhere = len(table) - (PATCH - RADIUS) * grid.stride + RADIUS
    matches = F.pad(m.nearest.view(grid.batch, height, width), [RADIUS] * 4, value=nowhere)
    patches = matches.unfold(1, PATCH, 1).unfold(2, PATCH, 1).reshape(-1, PATCH**2)
    sums = F.embedding_bag(patches - grid.patch, table, mode="sum").view(grid.batch, height, width, 4)
    return (sums[..., :3] / sums[..., 3:]).movedim(-1, 1)


def _limits(m: Matching, candidates: Tensor, active: Tensor | None) -> Tensor:
    """Return the error below which each candidate is better than the present match.

    As in `patch_match`, only the usage by other pixels counts.
    """
    grid = m.grid
    penalties = torch.addcmul(
        grid.padding_penalty.flatten(),
        grid.usage(m.nearest),
        grid.border_correction.flatten(),
        value=m.uniformity_penalty,
    )
    overlap_index = grid.overlap_index(candidates, m.nearest)
    discount = m.self_use_discount.index_select(0, overlap_index).view_as(candidates)
    present = penalties.index_select(0, m.nearest.flatten()).view_as(m.error) - PATCH**2 * m.uniformity_penalty
    cost = m.error + present
    if active is not None:
        cost = cost.where(active, -torch.inf)
    return (cost - penalties.index_select(0, candidates.flatten()).view_as(discount)).add_(discount)


@cache
def _kernel(device: torch.device) -> Callable[..., Tensor] | None:
    """Return `triton_errors.errors_below` where it runs, else None: not every torch comes with Triton."""
    if device.type != "cuda":
        return None
    try:
        module = import_module("wave_ops.propagation.triton_errors")
    except ImportError:
        return None
    kernel: Callable[..., Tensor] = module.errors_below
    return kernel if module.works(device) else None


def _fused_errors(kernel: Callable[..., Tensor], m: Matching, candidates: Tensor, limit: Tensor) -> Tensor:
    own_place = m.grid.own_place
    return kernel(
        m.source, m.target, candidates, limit, own_place=own_place, patch=PATCH, row_fraction=_MAX_ROW_FRACTION
    )


def _compare(m: Matching, candidates: Tensor, limit: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pairs of pixel and candidate that may be below their limit, by their middle row, and their errors."""
    source = candidates.flatten().index_select(0, pairs)
    target = m.grid.own_place.expand_as(candidates).flatten().index_select(0, pairs)
    first = _patch_errors(m, source, target, m.grid.middle_row)
    kept = (first < _MAX_ROW_FRACTION * limit.flatten().index_select(0, pairs)).nonzero().squeeze(1)
    source, target, pairs, first = (values.index_select(0, kept) for values in (source, target, pairs, first))
    return pairs, first + _patch_errors(m, source, target, m.grid.other_rows)


def _patch_errors(m: Matching, source: Tensor, target: Tensor, rows: Tensor) -> Tensor:
    """Sum the squared differences of pairs of patches over some of their rows."""
    most = _CPU_PAIRS if m.grid.device.type == "cpu" else _GPU_PAIRS
    parts = zip(*(places.split(most * PATCH // len(rows)) for places in (source, target)), strict=True)
    errors = [_patch_errors_at_once(m, one, other, rows) for one, other in parts]
    return errors[0] if len(errors) == 1 else torch.cat(errors)


def _patch_errors_at_once(m: Matching, source: Tensor, target: Tensor, rows: Tensor) -> Tensor:
    one, other = (
        _patch_rows(image).index_select(0, (places[:, None] + rows).flatten())
        for image, places in ((m.source, source), (m.target, target))
    )
    difference = one.sub_(other).view(len(source), one.shape[1] * len(rows))
    norm: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return norm.square_()


def _patch_rows(packed: Tensor) -> Tensor:
    """View packed images as all their patch rows, one beginning at each place; rows overlap in memory."""
    row = PATCH * CHANNELS
    return packed.as_strided((packed.numel() // CHANNELS - PATCH + 1, row), (CHANNELS, 1))
