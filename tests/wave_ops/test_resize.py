from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wave_ops.errors import WaveOpsError
from wave_ops.resize import analysis_size, fit_size, resize_frames

SIZES = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("source", "area", "multiple", "size"),
    [
        ((512, 512), 512 * 512, 64, (512, 512)),
        ((720, 1280), 512 * 512, 64, (384, 704)),
        ((272, 640), 512 * 512, 64, (320, 768)),
        ((144, 176), 512 * 512, 8, (464, 568)),
        ((64, 64), 64 * 64, 8, (64, 64)),
        ((10, 10_000), 64 * 64, 8, (8, 2024)),
    ],
)
def test_model_sizes_of_known_sources(source, area, multiple, size) -> None:
    assert fit_size(source, native_area=area, multiple=multiple) == size


@given(SIZES, st.integers(64, 1_000_000), st.sampled_from([8, 16, 64]))
def test_both_sides_of_a_model_size_are_multiples_and_within_half_a_multiple_of_the_scaled_source(
    source, area, multiple
) -> None:
    size = fit_size(source, native_area=area, multiple=multiple)
    scale = (area / (source[0] * source[1])) ** 0.5
    for side, wanted in zip(size, source, strict=True):
        assert side >= multiple
        assert side % multiple == 0
        assert abs(side - max(wanted * scale, multiple)) <= multiple / 2 + 1e-6


@pytest.mark.parametrize(
    ("source", "size"),
    [((144, 177), (144, 177)), ((512, 512), (512, 512)), ((720, 1280), (384, 682)), ((272, 640), (272, 640))],
)
def test_analysis_sizes_of_known_sources(source, size) -> None:
    assert analysis_size(source) == size


@given(SIZES)
def test_a_shrunk_analysis_grid_is_even_and_small_enough(source) -> None:
    size = analysis_size(source, max_area=10_000)
    if size == source:
        return
    assert not any(side % 2 for side in size)
    assert all(side <= max(old, 2) for side, old in zip(size, source, strict=True))
    assert size[0] * size[1] <= 10_000 or min(size) == 2


def test_frames_of_the_requested_size_are_returned_as_the_same_object() -> None:
    frames = noise(2, 5, 7, 3)
    assert resize_frames(frames, (5, 7)) is frames


def test_shrinking_averages_areas() -> None:
    frames = noise(2, 8, 12, 3)
    expected = frames.reshape(2, 2, 4, 4, 3, 3).mean(axis=(2, 4))
    assert np.abs(resize_frames(frames, (2, 4)) - expected).max() <= 0.5


def test_enlarging_keeps_pixel_centres_in_place() -> None:
    ramp = np.tile((np.arange(16, dtype=np.uint8) * 10 + 20)[None, None, :, None], (1, 4, 1, 3))
    enlarged = resize_frames(ramp, (4, 32)).astype(float)
    expected = 10 * ((np.arange(32) + 0.5) / 2 - 0.5) + 20
    assert np.abs(enlarged[0, 0, 4:-4, 0] - expected[4:-4]).max() <= 0.6


def test_one_side_shrinks_by_area_while_the_other_grows() -> None:
    frames = np.zeros((1, 8, 2, 3), np.uint8)
    frames[:, ::2] = 200
    assert np.unique(resize_frames(frames, (4, 8))).tolist() == [100]


def test_a_clip_of_no_frames_resizes_to_no_frames() -> None:
    assert resize_frames(noise(0, 5, 7, 3), (3, 2)).shape == (0, 3, 2, 3)


def test_one_channel_stays_one_channel() -> None:
    assert resize_frames(noise(2, 5, 7, 1), (3, 9)).shape == (2, 3, 9, 1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("frames", "size"),
    [
        (noise(5, 7, 3), (2, 2)),
        (noise(1, 5, 7, 3).astype(float), (2, 2)),
        (noise(1, 0, 7, 3), (2, 2)),
        (noise(1, 5, 7, 3), (0, 2)),
    ],
)
def test_bad_frames_and_sizes_are_refused(frames, size) -> None:
    with pytest.raises(WaveOpsError, match="expected"):
        resize_frames(frames, size)


def test_sizes_without_pixels_are_refused() -> None:
    with pytest.raises(WaveOpsError, match="at least 1 pixel"):
        fit_size((0, 5), native_area=64, multiple=8)
    with pytest.raises(WaveOpsError, match="at least 1, got"):
        fit_size((5, 5), native_area=64, multiple=0)
    with pytest.raises(WaveOpsError, match="at least 4"):
        analysis_size((5, 5), max_area=1)
