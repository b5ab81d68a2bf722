from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wave_ops.edges import canny_edges


def halves(*, upper: int | tuple[int, int, int], lower: int | tuple[int, int, int]) -> NDArray[np.uint8]:
    """A black frame of 16 x 24 whose right half has one colour above and one below: (1, height, width, 3)."""
    frame = np.zeros((1, 16, 24, 3), np.uint8)
    frame[:, :8, 12:], frame[:, 8:, 12:] = upper, lower
    return frame


def test_an_edge_is_a_line_of_ones_in_three_equal_channels() -> None:
    expected = torch.zeros(1, 3, 16, 24)
    expected[..., 11] = 1
    assert torch.equal(canny_edges(halves(upper=255, lower=255)), expected)


def test_each_frame_has_its_own_edges() -> None:
    clip = np.concatenate([halves(upper=0, lower=0), halves(upper=255, lower=255)])
    assert canny_edges(clip).sum(dim=(1, 2, 3)).tolist() == [0, 3 * 16]


@pytest.mark.parametrize("colour", [(200, 0, 0), (0, 200, 0), (0, 0, 200)], ids=["red", "green", "blue"])
def test_every_channel_counts_alone(colour: tuple[int, int, int]) -> None:
    assert canny_edges(halves(upper=colour, lower=colour)).any()


def test_an_outline_between_colours_of_one_brightness_is_an_edge() -> None:
    frame = halves(upper=(255, 0, 0), lower=(255, 0, 0))
    frame[:, :, :12] = (0, 130, 0)  # as bright as the red half
    assert torch.equal(canny_edges(frame)[0, 0, :, 11], torch.ones(16))


@pytest.mark.parametrize(
    ("upper", "lower", "found"), [(35, 35, False), (35, 80, True), (20, 80, False), (60, 60, True)]
)
def test_an_edge_below_the_high_threshold_is_kept_only_where_it_continues_a_strong_one(upper, lower, found) -> None:
    # A step of c grey levels has a Sobel gradient of 4 c: 25 levels reach the low threshold of 100, 50 the high one.
    edge = canny_edges(halves(upper=upper, lower=lower))[0, 0, :6, 11]
    assert torch.equal(edge, torch.full((6,), float(found)))
