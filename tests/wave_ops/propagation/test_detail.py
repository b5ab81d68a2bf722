from __future__ import annotations

import numpy as np
import pytest
import torch

from tests._propagation import to_array, to_tensor
from tests._propagation_oracle import plain_detail
from wave_ops.propagation import detail
from wave_ops.propagation.detail import restore_detail


def graded(image: np.ndarray) -> np.ndarray:
    """An edit that is one affine function of colour."""
    return np.stack((255 - 0.8 * image[..., 1], 40 + 0.7 * image[..., 2], 0.9 * image[..., 0]), axis=-1)


def restored(painted: np.ndarray, *, seen: np.ndarray, frame: np.ndarray, device: str = "cpu") -> np.ndarray:
    images, votes, frames = (to_tensor(image, device) for image in (painted, seen, frame))
    return to_array(restore_detail(images, seen=votes, frames=frames))


@pytest.fixture
def pair(make_texture):
    """The source as patches show it, and a frame that is a little lighter and noisier."""
    seen = make_texture(40, 56).astype(np.float32)
    frame = 0.95 * seen + 6 + np.random.default_rng(0).normal(0, 2, seen.shape)
    return seen, frame.astype(np.float32)


def test_detail_missing_from_the_patches_is_restored_through_the_edit(pair):
    seen, frame = pair
    painted, truth = graded(seen), graded(frame)
    assert np.abs(restored(painted, seen=seen, frame=frame) - truth).mean() < 0.1 * np.abs(painted - truth).mean()


def test_an_edit_that_the_source_does_not_explain_stays_as_painted(pair):
    seen, frame = pair
    painted = np.random.default_rng(2).uniform(0, 255, seen.shape).astype(np.float32)
    np.testing.assert_array_equal(restored(painted, seen=seen, frame=frame), painted)


def test_a_frame_that_the_patches_show_fully_stays_as_painted(pair, make_texture):
    seen, _ = pair
    for painted in (graded(seen), make_texture(40, 56, seed=9)):
        painted = painted.astype(np.float32)
        np.testing.assert_array_equal(restored(painted, seen=seen, frame=seen), painted)


@pytest.mark.parametrize("edit", ["none", "graded", "flat", "unlike"])
@pytest.mark.parametrize("size", [(9, 6), (12, 17)])
def test_detail_is_that_of_the_local_affine_function_by_a_plain_oracle(size, edit, torch_device, make_texture):
    rng = np.random.default_rng(3)
    seen = make_texture(*size)
    edited = {"none": seen, "graded": graded(seen), "flat": np.full_like(seen, 83.3), "unlike": 255 - seen[::-1]}[edit]
    painted, frame = edited + rng.normal(0, 1, seen.shape), seen + rng.normal(0, 9, seen.shape)
    expected = plain_detail(painted, seen, frame)
    if edit in ("none", "graded"):
        assert np.abs(expected - painted).mean() > 1
    np.testing.assert_allclose(restored(painted, seen=seen, frame=frame, device=torch_device), expected, atol=1e-3)


def test_two_frames_at_once_are_restored_as_each_alone(torch_device):
    rng = np.random.default_rng(0)
    painted, seen, frame = torch.from_numpy(rng.uniform(0, 255, (3, 2, 3, 12, 17)).astype(np.float32)).to(torch_device)
    both = restore_detail(painted, seen=seen, frames=frame)
    for one in (np.s_[:1], np.s_[1:]):
        torch.testing.assert_close(both[one], restore_detail(painted[one], seen=seen[one], frames=frame[one]))


def test_bands_are_seamless(pair, monkeypatch):
    seen, frame = pair
    painted = (graded(seen) + np.random.default_rng(1).normal(0, 1, seen.shape)).clip(0, 255)
    whole = restored(painted, seen=seen, frame=frame)
    monkeypatch.setattr(detail, "_BAND", 7)
    np.testing.assert_array_equal(restored(painted, seen=seen, frame=frame), whole)
