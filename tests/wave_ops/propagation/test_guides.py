from __future__ import annotations

import numpy as np

from wave_ops.propagation.guides import (
    carry,
    carry_matches,
    edge_guide,
    fill_holes,
    flow_holes,
    own_positions,
    position_guide,
)


def test_edges_are_the_four_neighbour_laplacian_cut_to_8_bit():
    frame = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    padded = np.pad(frame.astype(int), ((1, 1), (1, 1), (0, 0)), mode="reflect")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    np.testing.assert_array_equal(edge_guide(frame), np.clip(4 * frame.astype(int) - around, 0, 255))


def test_positions_are_ramps_from_0_to_255():
    guide = position_guide(own_positions(5, 9))
    assert guide[0, 0].tolist() == [0, 0, 0]
    assert guide[-1, -1].tolist() == [255, 255, 0]
    np.testing.assert_allclose(np.diff(guide[..., 0], axis=1), 255 / 8, rtol=1e-5)


def test_positions_are_carried_by_the_flow():
    flow = np.zeros((2, 6, 8), np.float32)
    flow[0], flow[1] = 1.5, -1
    carried = carry(own_positions(6, 8), flow)
    assert carried[:, 3, 2].tolist() == [3.5, 2.0]
    assert carried[:, 0, 7].tolist() == [7.0, 0.0]


def test_matches_are_carried_whole_never_mixed():
    matches = np.random.default_rng(0).integers(0, 100, (2, 6, 8)).astype(np.float32)
    flow = np.full((2, 6, 8), 0.25, np.float32)
    np.testing.assert_allclose(carry_matches(matches, flow), matches + 0.25)


def test_a_flow_that_returns_has_no_holes_and_one_that_leaves_the_frame_has():
    flow = np.zeros((2, 6, 8), np.float32)
    flow[0] = 2
    holes = flow_holes(flow, -flow)
    assert holes[:, 6:].all()
    assert not holes[:, :6].any()


def test_known_values_stay_and_holes_lie_between_their_surroundings():
    rng = np.random.default_rng(1)
    values, holes = rng.uniform(10, 20, (3, 33, 50)).astype(np.float32), np.zeros((33, 50), bool)
    holes[5:20, 10:40], values[:, 5:20, 10:40] = True, 1e6
    filled = fill_holes(values, holes)
    np.testing.assert_array_equal(filled[:, ~holes], values[:, ~holes])
    assert filled[:, holes].min() >= 10
    assert filled[:, holes].max() <= 20


def test_a_hole_in_a_constant_takes_the_constant():
    holes = np.random.default_rng(2).random((30, 31)) < 0.9
    np.testing.assert_allclose(fill_holes(np.full((1, 30, 31), 7, np.float32), holes), 7, rtol=1e-6)


def test_where_nothing_is_known_the_values_are_kept():
    values = np.random.default_rng(3).random((2, 5, 5), np.float32)
    np.testing.assert_array_equal(fill_holes(values, np.ones((5, 5), bool)), values)
