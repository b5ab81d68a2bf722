from __future__ import annotations

import numpy as np
import pytest
import torch

from tests._propagation import to_array, to_tensor
from wave_ops.propagation.guides import (
    edge_guide,
    inpaint,
    mirror_pad,
    pixel_grid,
    position_guide,
    source_guides,
    target_guides,
    warp_matches,
)


@pytest.mark.parametrize("size", [(7, 9), (2, 3), (1, 7)])
def test_edges_are_the_four_neighbour_laplacian_clipped_to_8_bits(size, torch_device):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3))
    padded = np.pad(frame, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    got = to_array(edge_guide(to_tensor(frame, torch_device)))
    np.testing.assert_array_equal(got, np.clip(4 * frame - around, 0, 255))


@pytest.mark.parametrize("size", [(7, 9), (2, 3), (1, 4)])
def test_a_margin_is_the_mirror_image_even_if_it_exceeds_the_image(size):
    frame = np.random.default_rng(0).uniform(0, 255, (*size, 3)).astype(np.float32)
    expected = np.pad(frame, ((5, 5), (5, 5), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(to_array(mirror_pad(to_tensor(frame), 5)), expected)


def test_the_pixel_grid_is_x_then_y():
    grid = pixel_grid((3, 5), batch=2)
    assert grid.shape == (2, 2, 3, 5)
    assert grid[1, :, 2, 4].tolist() == [4, 2]


def test_positions_are_ramps_from_0_to_255():
    guide = to_array(position_guide(pixel_grid((5, 9))))
    assert guide[0, 0].tolist() == [0, 0, 0]
    assert guide[-1, -1].tolist() == [255, 255, 0]
    np.testing.assert_allclose(np.diff(guide[..., 0], axis=1), 255 / 8, rtol=1e-5)


def test_a_keyframe_is_guided_by_its_edit_and_the_pixel_grid():
    frame, style = torch.rand(2, 2, 3, 6, 8) * 255
    source, target = source_guides(frame, style), target_guides(frame, style, pixel_grid((6, 8), batch=2))
    assert all(torch.equal(one, other) for one, other in zip(source, target, strict=True))
    assert torch.equal(source.colour, frame)
    assert torch.equal(source.temporal, style)


def test_matches_are_warped_without_interpolation(torch_device):
    rng = np.random.default_rng(0)
    matches, flow = rng.integers(0, 100, (2, 6, 8)), rng.normal(0, 3, (2, 6, 8)).astype(np.float32)
    got = warp_matches(*(torch.from_numpy(v.astype(np.float32)).to(torch_device)[None] for v in (matches, flow)))
    for y, x in np.ndindex(6, 8):
        there = np.array([x, y]) + flow[:, y, x]
        column, row = np.rint(np.clip(there, 0, (7, 5))).astype(int)
        expected = matches[:, row, column] + there - (column, row)
        np.testing.assert_allclose(got[0, :, y, x].cpu(), expected, atol=1e-4)


def test_known_values_stay_and_holes_take_values_between_their_surroundings(torch_device):
    rng = np.random.default_rng(1)
    values, holes = rng.uniform(10, 20, (33, 50, 3)), np.zeros((33, 50), bool)
    holes[5:20, 10:40], values[5:20, 10:40] = True, 1e6
    filled = to_array(inpaint(to_tensor(values, torch_device), torch.from_numpy(holes).to(torch_device)[None]))
    np.testing.assert_array_equal(filled[~holes], values[~holes].astype(np.float32))
    assert filled[holes].min() >= 10
    assert filled[holes].max() <= 20


@pytest.mark.parametrize("fraction", [0.1, 0.9, 0.99])
def test_a_hole_in_a_constant_takes_the_constant(fraction, torch_device):
    holes = torch.from_numpy(np.random.default_rng(2).random((1, 30, 31)) < fraction).to(torch_device)
    values = torch.full((1, 1, 30, 31), 7.0, device=torch_device).masked_fill(holes[:, None], -1)
    torch.testing.assert_close(inpaint(values, holes), torch.full_like(values, 7.0))


def test_an_image_without_known_values_is_returned_as_it_is_and_the_other_of_its_batch_filled(torch_device):
    values = torch.rand(2, 2, 5, 5, device=torch_device)
    holes = torch.ones(2, 5, 5, dtype=torch.bool, device=torch_device)
    holes[1, 2, 2] = False
    filled = inpaint(values, holes)
    assert torch.equal(filled[0], values[0])
    torch.testing.assert_close(filled[1], values[1, :, 2:3, 2:3].expand(2, 5, 5))
