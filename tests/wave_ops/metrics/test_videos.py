from __future__ import annotations

import doctest
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wave_ops.errors import WaveOpsError
from wave_ops.metrics import source_motion, temporal_consistency, video_consistency, video_warp_error

DOCS = Path(__file__).parents[3] / "docs"


def moving(frames: int = 3, *, seed: int = 0) -> NDArray[np.uint8]:
    """Draw a smooth pattern that moves by 2 pixels to the right."""
    noise = np.random.default_rng(seed).uniform(0, 255, (64, 96, 3)).astype(np.float32)
    picture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return np.stack([np.roll(picture, 2 * i, axis=1) for i in range(frames)])


def test_the_example_of_the_documentation_runs() -> None:
    found = doctest.testfile(str(DOCS / "metrics.md"), module_relative=False, encoding="utf-8")
    assert found.attempted > 5
    assert found.failed == 0


def test_a_video_that_moves_as_its_source_is_steady_and_one_that_flickers_is_not() -> None:
    source = moving()
    motion = source_motion(source)
    assert motion.to_prev.shape == (2, 2, 64, 96)
    assert np.abs(motion.to_prev[:, 0, 8:-8, 8:-8] + 2).mean() < 0.2
    steady = video_warp_error(255 - source, motion)
    assert steady.shape == (2,)
    assert steady.max() < 1e-3
    flicker = (255 - source).astype(int)
    flicker[1] -= 51
    found = video_warp_error(np.clip(flicker, 0, 255).astype(np.uint8), motion)
    assert found == pytest.approx([0.04, 0.04], rel=0.25)


def test_nothing_is_compared_across_a_cut() -> None:
    source = np.concatenate([moving(2), moving(2, seed=1)])
    errors = video_warp_error(source, source_motion(source, cuts=(2,)))
    assert np.isnan(errors).tolist() == [False, True, False]


def test_an_own_estimator_of_flow_is_used() -> None:
    still = np.zeros((2, 64, 96), np.float32)
    motion = source_motion(moving(2), estimate=lambda prev, cur: (still, still + 1))
    assert not motion.to_prev.any()
    assert (motion.to_cur == 1).all()
    assert not motion.valid.any()  # the two directions contradict each other


def test_a_single_frame_has_no_pairs() -> None:
    assert video_warp_error(moving(1), source_motion(moving(1))).shape == (0,)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("edited", [moving(2), moving()[:, :32], moving().astype(np.float32)])
def test_a_video_of_another_size_or_type_is_refused(edited: NDArray[np.uint8]) -> None:
    with pytest.raises(WaveOpsError, match="expected an uint8 video"):
        video_warp_error(edited, source_motion(moving()))


def test_consistency_is_the_mean_over_pairs_within_shots() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 4))
    assert video_consistency(vectors) == pytest.approx(temporal_consistency(torch.from_numpy(vectors).float()))
    shots = [temporal_consistency(torch.from_numpy(shot).float()) for shot in (vectors[:2], vectors[2:])]
    assert video_consistency(vectors, cuts=(2,)) == pytest.approx((shots[0] + 2 * shots[1]) / 3)
    assert np.isnan(video_consistency(vectors[:2], cuts=(1,)))
