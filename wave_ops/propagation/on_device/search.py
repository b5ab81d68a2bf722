"""Patch search on a torch device: all pixels of all exemplars of a batch at once.

The twin of `wave_ops.propagation.patch_match`, with the same packed layout, patch error and price on overuse. Where the
other goes from pixel to pixel, here each pixel weighs the matches of several neighbours and several random ones at
once, against the state that the pass before has left (PatchMatch, Barnes et al. 2009; jumps after Rong and Tan 2006).

Everything is gathered, and what is added up out of order is whole numbers: a device gives the same bytes every time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from wave_ops.propagation.on_device.grid import CHANNELS, PATCH, RADIUS, Grid

__all__ = ["Matching", "match_errors", "offer", "search", "shown", "vote"]

_MOST = 0.5  # of what a patch error may be: a candidate whose middle row alone has more is given up
_CACHED = 2**9  # pairs of patches compared at once where a processor's cache is what counts
_BULK = 2**17  # and elsewhere, which bounds what is gathered to 0.5 GB


@dataclass(slots=True)
class Matching:
    """The state of one search: packed images and the nearest-neighbour fields between them; places as of `Grid`.

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
    use_price: float
    """Error per unit of use."""
    error: Tensor = field(init=False)
    """(batch, 1, pixel): patch error of each match."""
    rebate: Tensor = field(init=False)
    """What a candidate's price holds of the pixel's own use, as `Grid.overlap`; the present match is out of reach."""

    def __post_init__(self) -> None:
        self.ask(self.use_price)
        self.error = torch.empty_like(self.nearest, dtype=torch.float32)
        match_errors(self, torch.ones_like(self.nearest, dtype=torch.bool))

    def ask(self, use_price: float) -> None:
        """Set the price."""
        self.use_price = use_price
        self.rebate = self.grid.overlap * use_price
        self.rebate[len(self.rebate) // 2] = -torch.inf


def match_errors(m: Matching, where: Tensor) -> int:
    """Compute anew the patch error of the matches of some pixels, (batch, 1, pixel); return how many these are."""
    pixels = where.flatten().nonzero().squeeze(1)
    source, target = (places.flatten().index_select(0, pixels) for places in (m.nearest, m.grid.here))
    m.error.view(-1).index_copy_(0, pixels, _patch_errors(m, source, target, m.grid.patch_rows))
    return len(pixels)


def search(m: Matching, number: int, active: Tensor, *, search_above: float, reach: int) -> None:
    """Offer the active pixels the matches of their neighbours, and random ones.

    All choose at once by the same prices. Where these are far above the errors, many crowd onto what is cheap and leave
    it together; the falling price of the schedule ends that.

    Args:
        m: the state.
        number: counts the passes of a search; each jumps and looks elsewhere.
        active: (batch, 1, pixel), True where a better match may still be found.
        search_above: random matches are tried where the error is above this.
        reach: how far from the present match these lie at most, pixels.
    """
    # No way at all leads to the present match, which is left out.
    random = m.nearest + m.grid.random_ways(number, reach) * (m.error > search_above)
    offer(m, torch.cat((m.grid.passed_on(m.nearest, number), random), dim=1), active=active)


def offer(m: Matching, candidates: Tensor, *, active: Tensor | None = None) -> None:
    """Let each (active) pixel take the candidate, (batch, candidate, pixel), with the least error plus price, if less.

    Only pairs of patches that may win are compared, and beyond one row only those that are still likely to.
    """
    candidates = candidates.clamp(m.grid.first, m.grid.last)
    limit = _limits(m, candidates, active)
    pairs = (limit > 0).flatten().nonzero().squeeze(1)
    errors = torch.full_like(limit, torch.inf)
    compared, found = _compare(m, candidates, limit, pairs)
    errors.view(-1).index_copy_(0, compared, found)
    gain, best = (errors - limit).min(dim=1, keepdim=True)
    better = gain < 0
    m.error = torch.where(better, errors.gather(1, best), m.error)
    m.nearest = torch.where(better, candidates.gather(1, best), m.nearest)


def vote(m: Matching) -> None:
    """Set the target's style to what the matches show of the source's."""
    image = F.pad(shown(m, m.style), [RADIUS] * 4, mode="replicate")
    m.target[..., :3] = image.movedim(1, -1)


def shown(m: Matching, listed: Tensor) -> Tensor:
    """Return the mean of what the matches of all patches over a pixel show there of a source listed as the style is."""
    grid = m.grid
    height, width = grid.size
    # Patches beside the image point to the zeros at the end of the style, and count 0.
    nowhere = len(listed) - (PATCH - RADIUS) * grid.stride + RADIUS
    matches = F.pad(m.nearest.view(grid.batch, height, width), [RADIUS] * 4, value=nowhere)
    patches = matches.unfold(1, PATCH, 1).unfold(2, PATCH, 1).reshape(-1, PATCH**2)
    sums = F.embedding_bag(patches - grid.patch, listed, mode="sum").view(grid.batch, height, width, 4)
    return (sums[..., :3] / sums[..., 3:]).movedim(-1, 1)


def _limits(m: Matching, candidates: Tensor, active: Tensor | None) -> Tensor:
    """Return the error below which each candidate is better than the present match; a pixel's own use is free."""
    grid = m.grid
    prices = torch.addcmul(grid.beside_image.flatten(), grid.uses(m.nearest), grid.fair.flatten(), value=m.use_price)
    rebate = m.rebate.index_select(0, grid.overlap_index(candidates, m.nearest)).view_as(candidates)
    present = prices.index_select(0, m.nearest.flatten()).view_as(m.error) - PATCH**2 * m.use_price
    cost = m.error + present
    if active is not None:
        cost = cost.where(active, -torch.inf)
    return (cost - prices.index_select(0, candidates.flatten()).view_as(rebate)).add_(rebate)


def _compare(m: Matching, candidates: Tensor, limit: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return which pairs of pixel and candidate may be below their limit, by their middle row, and their errors."""
    source = candidates.flatten().index_select(0, pairs)
    target = m.grid.here.expand_as(candidates).flatten().index_select(0, pairs)
    first = _patch_errors(m, source, target, m.grid.middle_row)
    kept = (first < _MOST * limit.flatten().index_select(0, pairs)).nonzero().squeeze(1)
    source, target, pairs, first = (values.index_select(0, kept) for values in (source, target, pairs, first))
    return pairs, first + _patch_errors(m, source, target, m.grid.other_rows)


def _patch_errors(m: Matching, source: Tensor, target: Tensor, rows: Tensor) -> Tensor:
    """Sum the squared differences of pairs of patches over some of their rows."""
    step = _at_once(m) * PATCH // len(rows)
    pairs = zip(source.split(step), target.split(step), strict=True)
    errors = [_some_patch_errors(m, one, other, rows) for one, other in pairs]
    return errors[0] if len(errors) == 1 else torch.cat(errors)


def _some_patch_errors(m: Matching, source: Tensor, target: Tensor, rows: Tensor) -> Tensor:
    one, other = (
        _rows(image).index_select(0, (places[:, None] + rows).flatten())
        for image, places in ((m.source, source), (m.target, target))
    )
    difference = one.sub_(other).view(len(source), one.shape[1] * len(rows))
    norm: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return norm.square_()


def _rows(packed: Tensor) -> Tensor:
    """See packed images as all their patch rows, one beginning at each place."""
    row = PATCH * CHANNELS
    return packed.as_strided((packed.numel() // CHANNELS - PATCH + 1, row), (CHANNELS, 1))


def _at_once(m: Matching) -> int:
    return _CACHED if m.grid.device.type == "cpu" else _BULK
