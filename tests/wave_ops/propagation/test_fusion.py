from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import diags, eye, kron, vstack
from scipy.sparse.linalg import spsolve

from wave_ops.errors import WaveOpsError
from wave_ops.propagation.fusion import fuse_gradients, selected_gradients


def least_squares(values: np.ndarray, gradient_x: np.ndarray, gradient_y: np.ndarray, weight: float) -> np.ndarray:
    """Stack |x - values|^2 and g^2 |grad x - gradient|^2 as one sparse system and solve it."""
    height, width = values.shape
    across = kron(eye(height), diags([-1.0, 1.0], [0, 1], shape=(width - 1, width)))
    down = kron(diags([-1.0, 1.0], [0, 1], shape=(height - 1, height)), eye(width))
    rows = vstack([eye(height * width), weight * across, weight * down]).tocsc()
    right = np.concatenate([values.ravel(), weight * gradient_x.ravel(), weight * gradient_y.ravel()])
    return spsolve(rows.T @ rows, rows.T @ right).reshape(height, width)


@pytest.mark.parametrize("size", [(12, 17), (17, 12), (1, 9), (9, 1)])
def test_the_cosine_solution_is_the_sparse_least_squares_solution(size):
    rng = np.random.default_rng(0)
    height, width = size
    values = rng.uniform(0, 255, (height, width, 3)).astype(np.float32)
    gradient_x = rng.normal(0, 40, (height, width - 1, 3)).astype(np.float32)
    gradient_y = rng.normal(0, 40, (height - 1, width, 3)).astype(np.float32)
    fused = fuse_gradients(values, gradient_x, gradient_y, weights=(2.5, 0.5, 0.0))
    for channel, weight in enumerate((2.5, 0.5, 0.0)):
        one = np.s_[..., channel]
        expected = least_squares(values[one], gradient_x[one], gradient_y[one], weight)
        np.testing.assert_allclose(fused[one], expected, atol=1e-4 * 255, rtol=0)
        assert fused.dtype == np.float32


def test_in_double_precision_it_agrees_to_nine_digits():
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 1, (31, 20, 1))
    gradient_x, gradient_y = rng.normal(size=(31, 19, 1)), rng.normal(size=(30, 20, 1))
    fused = fuse_gradients(values, gradient_x, gradient_y, weights=(2.5,))
    expected = least_squares(values[..., 0], gradient_x[..., 0], gradient_y[..., 0], 2.5)
    np.testing.assert_allclose(fused[..., 0], expected, atol=1e-9)


def test_an_image_with_its_own_gradients_stays_as_it_is():
    image = np.random.default_rng(2).uniform(0, 255, (16, 24, 3))
    nothing = np.zeros((16, 24), bool)
    gradients = selected_gradients(image, image + 50, nothing)
    np.testing.assert_allclose(fuse_gradients(image, *gradients, weights=(2.5, 0.5, 0.5)), image, atol=1e-9)


def test_the_step_between_two_selected_candidates_is_no_gradient():
    first, last = np.zeros((4, 6, 1)), np.full((4, 6, 1), 100.0)
    gradient_x, gradient_y = selected_gradients(first, last, np.arange(24).reshape(4, 6) % 2 == 0)
    assert not gradient_x.any()
    assert not gradient_y.any()


def test_gradients_come_from_the_candidate_selected_at_the_pixel():
    first, last = np.random.default_rng(3).normal(size=(2, 5, 7, 3))
    chosen = np.random.default_rng(4).random((5, 7)) < 0.5
    gradient_x, gradient_y = selected_gradients(first, last, chosen)
    for y in range(5):
        for x in range(7):
            image = last if chosen[y, x] else first
            if x < 6:
                np.testing.assert_array_equal(gradient_x[y, x], image[y, x + 1] - image[y, x])
            if y < 4:
                np.testing.assert_array_equal(gradient_y[y, x], image[y + 1, x] - image[y, x])


def test_shapes_that_do_not_belong_together_are_refused(unchecked):
    values = np.zeros((4, 5, 3))
    with pytest.raises(WaveOpsError, match="gradients of shapes"):
        fuse_gradients(values, np.zeros((4, 5, 3)), np.zeros((3, 5, 3)), weights=(1, 1, 1))
    with pytest.raises(WaveOpsError, match="weights"):
        fuse_gradients(values, np.zeros((4, 4, 3)), np.zeros((3, 5, 3)), weights=(1, 1))
