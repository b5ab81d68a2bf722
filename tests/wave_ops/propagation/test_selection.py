from __future__ import annotations

import numpy as np
import pytest

from wave_ops.errors import WaveOpsError
from wave_ops.propagation.selection import blend_weights, carry_selection, select, selection_weight


def test_the_symmetric_weight_treats_both_keyframes_alike():
    for length in range(2, 12):
        for i in range(1, length):
            assert selection_weight(i, length) == pytest.approx(1 - selection_weight(length - i, length))


def test_the_published_weight_is_i_minus_1_over_k_minus_1():
    assert [selection_weight(i, 5, kind="published") for i in range(1, 5)] == [0, 0.25, 0.5, 0.75]
    assert selection_weight(1, 2, kind="published") == 0


@pytest.mark.parametrize("index", [0, 8, -1])
def test_keyframes_are_never_selected(index):
    with pytest.raises(WaveOpsError):
        selection_weight(index, 8)


def test_a_pixel_is_taken_where_its_weighted_first_error_is_the_larger():
    first, last = np.array([[10.0, 1.0, 3.0]]), np.array([[1.0, 10.0, 1.0]])
    assert select(first, last, weight=0.25).tolist() == [[True, False, True]]  # 2.5 >= 0.75, 0.25 < 7.5, 0.75 >= 0.75


def test_what_has_switched_stays_switched():
    first, last = np.zeros((1, 2)), np.ones((1, 2))
    assert select(first, last, weight=0.5, switched=np.array([[True, False]])).tolist() == [[True, False]]


def test_a_switched_pixel_is_carried_along_the_flow():
    chosen = np.zeros((6, 8), bool)
    chosen[2, 3] = True
    flow = np.zeros((2, 6, 8), np.float32)
    flow[0], flow[1] = -2.2, -1.4  # everything has moved by about (2, 1)
    carried = carry_selection(chosen, flow, np.zeros((6, 8), bool))
    assert np.argwhere(carried).tolist() == [[3, 5]]


def test_what_has_no_match_in_the_frame_before_starts_anew():
    chosen, holes = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    holes[1, 2] = True
    carried = carry_selection(chosen, np.zeros((2, 4, 4), np.float32), holes)
    assert np.argwhere(~carried).tolist() == [[1, 2]]


def test_where_both_fit_alike_the_share_is_the_weight_of_time():
    error = np.full((20, 20), 500, np.float32)
    np.testing.assert_allclose(blend_weights(error, error, weight=0.3), 0.3, rtol=1e-5)


def test_where_only_one_fits_the_share_is_its_own():
    first = np.zeros((20, 40), np.float32)
    first[:, 20:] = 1e6
    share = blend_weights(first, 1e6 - first, weight=0.5)
    assert share[:, :14].max() < 1e-3
    assert share[:, 26:].min() > 1 - 1e-3
