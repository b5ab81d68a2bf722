from __future__ import annotations

import numpy as np
import pytest

from wave_ops.propagation import detail
from wave_ops.propagation.detail import restore_detail


def graded(image: np.ndarray) -> np.ndarray:
    """An edit that is one affine function of colour."""
    return np.stack((255 - 0.8 * image[..., 1], 40 + 0.7 * image[..., 2], 0.9 * image[..., 0]), axis=-1)


@pytest.fixture
def pair(make_texture):
    """What patches show of the source, and a frame that is a little lighter and noisier."""
    seen = make_texture(40, 56).astype(np.float32)
    frame = 0.95 * seen + 6 + np.random.default_rng(0).normal(0, 2, seen.shape)
    return seen, frame.astype(np.float32)


def test_what_patches_miss_comes_back_through_the_edit(pair):
    seen, frame = pair
    painted, truth = graded(seen).astype(np.float32), graded(frame)
    restored = restore_detail(painted, seen=seen, frame=frame)
    assert np.abs(restored - truth).mean() < 0.1 * np.abs(painted - truth).mean()


def test_an_edit_that_the_source_does_not_explain_stays_as_it_was_painted(pair):
    seen, frame = pair
    painted = np.random.default_rng(2).uniform(0, 255, seen.shape).astype(np.float32)
    np.testing.assert_array_equal(restore_detail(painted, seen=seen, frame=frame), painted)


def test_where_nothing_is_missing_nothing_changes(pair, make_texture):
    seen, _ = pair
    for painted in (graded(seen), make_texture(40, 56, seed=9)):
        painted = painted.astype(np.float32)
        np.testing.assert_array_equal(restore_detail(painted, seen=seen, frame=seen), painted)


def test_bands_are_seamless(pair, monkeypatch):
    seen, frame = pair
    painted = (graded(seen) + np.random.default_rng(1).normal(0, 1, seen.shape)).clip(0, 255).astype(np.float32)
    whole = restore_detail(painted, seen=seen, frame=frame)
    monkeypatch.setattr(detail, "_BAND", 7)
    np.testing.assert_allclose(restore_detail(painted, seen=seen, frame=frame), whole, atol=1e-2)
