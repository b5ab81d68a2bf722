from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from tests.wave_ops._reference import source_cells, warp_features
from wave_ops.errors import WaveOpsError
from wave_ops.feature_warping import PairWarps, gather_map, gather_positions, nearest_indices
from wave_ops.shuffle import step_order


def plain_recursion(features, order, warps):
    """The method as written, frame by frame: features (branch, frame, channel, height, width)."""
    fused, size = features.clone(), tuple(features.shape[-2:])
    for place, pair in enumerate(pairwise(order), start=1):
        sources = source_cells(warps, pair, size)
        fused[:, place] = warp_features(features[:, place], fused[:, place - 1], sources)
    return fused


@pytest.mark.parametrize("size", [(16, 16), (8, 12), (4, 4)])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_one_gather_equals_the_frame_by_frame_recursion_bit_for_bit(make_warps, size, count):
    warps = make_warps(count, size=(64, 96), seed=count, flow=20.0)
    order = step_order(count, seed=count, step_index=1)
    features = torch.randn(3, count, 5, *size)
    index = gather_map(order, warps.at(size))
    fused = gather_positions(features.flatten(3).mT, index).mT.unflatten(3, size)
    assert torch.equal(fused, plain_recursion(features, order, warps))
    assert not torch.equal(fused, features)


@pytest.mark.parametrize("cuts", [(1, 2, 3, 4, 5), (2, 4), (3,), (5,)])
def test_any_split_into_batches_yields_the_same_features(make_warps, cuts):
    warps, size, order = make_warps(6), (8, 8), (1, 0, 3, 2, 5, 4)
    features = torch.randn(2, 6, 64, 3)
    grid = warps.at(size)
    whole = gather_positions(features, gather_map(order, grid))
    parts, previous = [], None
    for start, stop in pairwise((0, *cuts, 6)):
        batch = features[:, start:stop]
        joined = batch if previous is None else torch.cat([parts[-1][:, -1:], batch], dim=1)
        parts.append(gather_positions(joined, gather_map(order[start:stop], grid, previous=previous)))
        previous = order[stop - 1]
    assert torch.equal(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("size", [(64, 64), (16, 16), (7, 9)])
def test_zero_flow_is_the_identity_at_every_size(size):
    index = nearest_indices(torch.zeros(1, 2, 64, 64), size)
    assert torch.equal(index[0], torch.arange(size[0] * size[1]))


def test_eight_pixels_at_512_are_one_cell_at_64():
    flow = torch.zeros(1, 2, 512, 512)
    flow[:, 0] = 8.0
    index = nearest_indices(flow, (64, 64)).unflatten(1, (64, 64))
    assert torch.equal(index[0, :, :-1], torch.arange(64 * 64).reshape(64, 64)[:, 1:])
    assert torch.equal(index[0, :, -1], torch.arange(64 * 64).reshape(64, 64)[:, -1])


def test_x_comes_before_y_in_a_flow():
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 1] = 1.0
    assert nearest_indices(flow, (8, 8))[0, 0] == 8


def test_each_direction_of_a_pair_has_its_own_flow_and_mask():
    flows = torch.stack([torch.full((2, 4, 4), value) for value in (1.0, 2.0)])
    masks = torch.tensor([True, False])[:, None, None].expand(2, 4, 4)
    warps = PairWarps.from_pairs([(0, 1)], to_prev=flows[:1], to_cur=flows[1:], mask_cur=masks[:1], mask_prev=masks[1:])
    assert torch.equal(warps.flow_to_prev[0, 1], flows[0])
    assert torch.equal(warps.flow_to_prev[1, 0], flows[1])
    assert warps.mask[0, 1].all()
    assert not warps.mask[1, 0].any()


def test_an_order_without_flow_for_a_pair_is_refused(make_warps):
    with pytest.raises(WaveOpsError, match=r"\(5, 0\)"):
        gather_map((5, 0), make_warps(2).at((4, 4)))


def test_a_flow_with_nan_is_refused():
    flows = torch.full((1, 2, 4, 4), torch.nan)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    with pytest.raises(WaveOpsError, match="finite"):
        PairWarps.from_pairs([(0, 1)], to_prev=flows, to_cur=flows, mask_cur=mask, mask_prev=mask)


def test_the_maps_of_all_pairs_of_a_grid_are_one_tensor_each() -> None:
    flow, mask = torch.zeros(2, 2, 32, 32), torch.ones(2, 32, 32, dtype=torch.bool)
    warps = PairWarps.from_pairs([(0, 1), (1, 2)], to_prev=flow, to_cur=flow, mask_cur=mask, mask_prev=mask)
    grid = warps.at((4, 4))
    for maps in (grid.index, grid.mask):
        assert len(maps) == 4
        assert len({each.untyped_storage().data_ptr() for each in maps.values()}) == 1


@pytest.mark.parametrize(
    ("size", "dtype"), [((4, 4), torch.int16), ((128, 256), torch.int16), ((1, 32769), torch.int32)]
)
def test_maps_take_the_smallest_type_that_holds_the_cells(size: tuple[int, int], dtype: torch.dtype) -> None:
    flow, mask = torch.zeros(1, 2, *size), torch.ones(1, *size, dtype=torch.bool)
    warps = PairWarps.from_pairs([(0, 1)], to_prev=flow, to_cur=flow, mask_cur=mask, mask_prev=mask)
    grid = warps.at(size)
    assert {each.dtype for each in grid.index.values()} == {dtype}
    assert torch.equal(grid.index[0, 1].long(), torch.arange(size[0] * size[1]))  # zero flow: the last cell fits too
    assert gather_map((0, 1), grid).dtype == torch.int32
