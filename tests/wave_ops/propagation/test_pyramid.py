from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests._operations import Operations
from tests._propagation import to_array, to_tensor
from wave_ops.propagation.pyramid import enlarge, pyramid_sizes, shrink

SIZES = [(12, 17), (16, 24), (9, 5), (45, 90), (1, 7), (11, 1)]


def image(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (*size, 3)).astype(np.float32)


def test_sizes_halve_rounding_up_until_the_shorter_side_would_fall_below_the_coarsest():
    assert pyramid_sizes((45, 100), 11) == ((45, 100), (23, 50), (12, 25))
    assert pyramid_sizes((10, 100), 11) == ((10, 100),)


@pytest.mark.parametrize("size", SIZES)
def test_shrinking_takes_means_over_areas(size, torch_device):
    half = (size[0] + 1) // 2, (size[1] + 1) // 2
    expected = cv2.resize(image(size), half[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(to_array(shrink(to_tensor(image(size), torch_device), half)), expected, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_enlarging_is_bilinear_between_pixel_centres(size, torch_device):
    double = 2 * size[0], 2 * size[1] - 1
    expected = cv2.resize(image(size), double[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(to_array(enlarge(to_tensor(image(size), torch_device), double)), expected, atol=1e-3)


def test_the_weights_of_a_size_are_computed_once():
    images = to_tensor(image((48, 60)))
    first = shrink(images, (12, 20))
    operations = Operations()
    with operations:
        again = shrink(images, (12, 20))
    # A scale of 3 has four terms, and one of 4 has five: each is a gather and a product, added to the terms before.
    assert operations.by_name == {"index_select": 9, "mul": 9, "add": 7}
    assert first.equal(again)
