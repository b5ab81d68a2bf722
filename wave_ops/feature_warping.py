"""The recursion of feature warping along an order of keyframes, composed into one gather per feature grid.

Sampling is nearest and the mask is binary, so every fused position is a copy of exactly one generated position:
source(cur, p) = source(prev, q(p)) where the warp mask is set, and (cur, p) elsewhere. A whole chain of frames is thus
one integer map, which is computed before the UNet runs and applied with one `index_select` per site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wave_ops.errors import WaveOpsError

__all__ = ["GridWarps", "PairWarps", "gather_map", "gather_positions", "nearest_indices"]


def nearest_indices(
    flow_to_prev: Float[Tensor, "pair 2 height width"], size: tuple[int, int]
) -> Int[Tensor, "pair position"]:
    """Return, for each cell of a feature grid, the flat index of the previous frame's cell that it is taken from.

    Source: WAVE sec. 4 (nearest sampling). Full-resolution positions p + flow are resized bilinearly to the grid,
    then rounded; reflection at the border. Deviates from the published code, which mixes two conventions: here pixel
    centres, align_corners=False, so that zero flow is the identity at every size.

    Args:
        flow_to_prev: pixels of its own grid, x then y, on the grid of the current frame.
        size: the feature grid (height, width).

    Returns:
        Indices 0 to height * width - 1, row by row.
    """
    height, width = size
    # Resizing p + flow equals adding the grid's own p to the resized flow, in cells of the grid
    displacement = F.interpolate(flow_to_prev.float(), size=size, mode="bilinear", align_corners=False)
    x = torch.arange(width, device=flow_to_prev.device) + displacement[:, 0] * (width / flow_to_prev.shape[-1])
    y = torch.arange(height, device=flow_to_prev.device)[:, None] + displacement[:, 1] * (
        height / flow_to_prev.shape[-2]
    )
    cells = _reflect(y.round().long(), height) * width + _reflect(x.round().long(), width)
    return cells.flatten(1)


def _reflect(index: Int[Tensor, "*any"], length: int) -> Int[Tensor, "*any"]:
    """Mirror indices at the outer edges of the border cells, into 0 .. length - 1."""
    folded = index.remainder(2 * length)  # not negative, whatever the sign of the index
    return torch.minimum(folded, 2 * length - 1 - folded)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridWarps:
    """Source cells and warp masks on one feature grid, by ordered keyframe pair (previous, current)."""

    index: Mapping[tuple[int, int], Int[Tensor, " position"]]
    """Flat index of the previous frame's cell for each cell of the current one: int16 where it fits, else int32."""
    mask: Mapping[tuple[int, int], Bool[Tensor, " position"]]
    """True where the warped feature is taken."""
    size: tuple[int, int]
    """(height, width) of the grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairWarps:
    """Flow and warp masks at full resolution, by ordered keyframe pair (previous, current)."""

    flow_to_prev: Mapping[tuple[int, int], Float[Tensor, "2 height width"]]
    """Pixels, on the grid of the current keyframe."""
    mask: Mapping[tuple[int, int], Bool[Tensor, "height width"]]
    """True where the warped feature is taken."""

    @classmethod
    def from_pairs(
        cls,
        pairs: Sequence[tuple[int, int]],
        *,
        to_prev: Float[Tensor, "pair 2 height width"],
        to_cur: Float[Tensor, "pair 2 height width"],
        mask_cur: Bool[Tensor, "pair height width"],
        mask_prev: Bool[Tensor, "pair height width"],
    ) -> PairWarps:
        """Collect both directions of unordered keyframe pairs.

        Args:
            pairs: keyframe indices (first, second).
            to_prev: flow from the second to the first, pixels, on the second's grid.
            to_cur: flow from the first to the second, pixels, on the first's grid.
            mask_cur: warp mask on the second's grid.
            mask_prev: warp mask on the first's grid.

        Raises:
            WaveOpsError: a flow is not finite.
        """
        if not (torch.isfinite(to_prev).all() and torch.isfinite(to_cur).all()):
            raise WaveOpsError("the flow between keyframes must be finite, it has NaN or infinite values")
        flow, mask = {}, {}
        for i, (first, second) in enumerate(pairs):
            flow[first, second], flow[second, first] = to_prev[i], to_cur[i]
            mask[first, second], mask[second, first] = mask_cur[i], mask_prev[i]
        return cls(flow_to_prev=flow, mask=mask)

    def at(self, size: tuple[int, int], *, device: torch.device | None = None) -> GridWarps:
        """Resize positions (bilinear, then rounded) and masks (nearest) to a feature grid (height, width)."""
        count, cells = len(self.flow_to_prev), size[0] * size[1]
        kept_on = next((flow.device for flow in self.flow_to_prev.values()), None)
        # One tensor for all pairs: small ones among the large flows would leave gaps in memory that no flow fits into
        index = torch.empty(count, cells, dtype=_cell_type(cells), device=kept_on)
        mask = torch.empty(count, cells, dtype=torch.bool, device=kept_on)
        for i, (pair, flow) in enumerate(self.flow_to_prev.items()):
            index[i] = nearest_indices(flow[None], size)[0]
            full = self.mask[pair][None, None].float()
            # "nearest-exact" takes the pixel at the cell's centre; "nearest" would shift the mask by half a cell
            mask[i] = F.interpolate(full, size=size, mode="nearest-exact").flatten().bool()
        rows = (dict(zip(self.flow_to_prev, values.to(device), strict=True)) for values in (index, mask))
        return GridWarps(index=next(rows), mask=next(rows), size=size)


def _cell_type(cells: int) -> torch.dtype:
    """Return the smallest type of the indices of so many cells: maps of all pairs stay in memory for the stage."""
    return torch.int16 if cells <= torch.iinfo(torch.int16).max + 1 else torch.int32


def gather_map(order: Sequence[int], grid: GridWarps, *, previous: int | None = None) -> Int[Tensor, " frame_position"]:
    """Compose the recursion along an order into one map, int32, from fused to generated positions.

    Source: WAVE sec. 4, z^_cur = B W(z^_prev) + (1 - B) z_cur with z^_prev already fused.

    Args:
        order: keyframe indices, in the order of the step or a part of it.
        grid: the pairs' indices and masks on the feature grid.
        previous: the keyframe before that part; its fused feature then precedes the part's own features.

    Returns:
        At [i * cells + p], for frame i of the part and cell p: the flat position in (previous, part) that it is a
        copy of. The previous keyframe's own cells are not listed.

    Raises:
        WaveOpsError: a pair of the order has no flow.
    """
    cells = torch.arange(grid.size[0] * grid.size[1], dtype=torch.int32, device=_device(grid))
    offset = 0 if previous is None else 1
    source, maps = cells, []
    for i, frame in enumerate(order, start=offset):
        own = cells + i * len(cells)
        source = own if previous is None else _follow(source, own, grid, (previous, frame))
        maps.append(source)
        previous = frame
    return torch.cat(maps)


def _follow(
    source: Int[Tensor, " position"], own: Int[Tensor, " position"], grid: GridWarps, pair: tuple[int, int]
) -> Int[Tensor, " position"]:
    if pair not in grid.index:
        raise WaveOpsError(f"no flow for the keyframe pair {pair}: compute flow for all pairs of the shuffle mode")
    # `source` is composed already, so the fused cell of the previous frame is followed to the cell it is a copy of
    return torch.where(grid.mask[pair], source[grid.index[pair].int()], own)


def _device(grid: GridWarps) -> torch.device | None:
    return next((index.device for index in grid.index.values()), None)


def gather_positions(
    features: Float[Tensor, "branch frame position channel"], index: Int[Tensor, " fused_position"]
) -> Float[Tensor, "branch fused position channel"]:
    """Apply a composed map to the features of every branch: one gather, the same for all branches and channels."""
    cells = features.shape[2]
    # Frames and positions as one axis: one index selects both, and whole rows of channels are copied
    fused: Tensor = features.flatten(1, 2).index_select(1, index).unflatten(1, (-1, cells))
    return fused
