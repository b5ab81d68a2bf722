from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from wave_ops.errors import WaveOpsError
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import random_scene
from wave_ops.shot_detection import detect_cuts

Frame = NDArray[np.uint8]


def picture(seed: int, *, side: int = 400) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def pan(seed: int, count: int, *, speed: int) -> list[Frame]:
    """Return a window of 96 x 128 that moves over a picture."""
    whole = picture(seed)
    return [whole[50:146, 20 + speed * i : 148 + speed * i] for i in range(count)]


@pytest.mark.parametrize("speed", [0, 2, 10, 20])
def test_a_pan_has_no_cut_however_fast(speed) -> None:
    assert detect_cuts(pan(0, 10, speed=speed)) == ()


@pytest.mark.parametrize("speed", [0, 10])
def test_each_join_of_two_shots_is_found(speed) -> None:
    shots = [pan(seed, length, speed=speed) for seed, length in enumerate((5, 9, 4, 6))]
    assert detect_cuts(frame for shot in shots for frame in shot) == (5, 14, 18)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_is_not_a_cut(length) -> None:
    frames = pan(0, 12, speed=2)
    frames[5 : 5 + length] = [np.full_like(frames[0], 255)] * length
    assert detect_cuts(frames) == ()


def test_a_cut_right_after_a_flash_is_found() -> None:
    frames = [*pan(0, 6, speed=2), np.full((96, 128, 3), 255, np.uint8), *pan(0, 4, speed=2), *pan(1, 6, speed=2)]
    assert detect_cuts(frames) == (11,)


def test_a_cut_before_the_last_frames_is_found() -> None:
    assert detect_cuts([*pan(0, 5, speed=2), *pan(1, 1, speed=2)]) == (5,)


def test_a_sudden_dimming_of_the_light_is_not_a_cut() -> None:
    frames = pan(0, 8, speed=2)
    frames[4:] = [(frame * 0.85).astype(np.uint8) for frame in frames[4:]]
    assert detect_cuts(frames) == ()


@pytest.mark.parametrize("count", [0, 1])
def test_a_clip_of_fewer_than_two_frames_has_no_cut(count) -> None:
    assert detect_cuts(pan(0, count, speed=0)) == ()


def test_frames_are_read_once_and_not_stored() -> None:
    class Tracked(np.ndarray):
        """An array that can be weakly referenced."""

    yielded: list[weakref.ref[Frame]] = []

    def stream() -> Iterator[Frame]:
        for frame in pan(0, 40, speed=3):
            assert sum(ref() is not None for ref in yielded) <= 1
            tracked = frame.copy().view(Tracked)
            yielded.append(weakref.ref(tracked))
            yield tracked

    assert detect_cuts(stream()) == ()
    assert len(yielded) == 40


def test_frames_of_any_size_have_the_same_cuts() -> None:
    for size in ((8, 8), (31, 500)):
        frames = [cv2.resize(frame, size[::-1]) for frame in [*pan(0, 4, speed=0), *pan(1, 4, speed=0)]]
        assert detect_cuts(frames) == (4,)


@pytest.mark.parametrize("seed", range(6))
def test_a_hard_scene_has_no_cut(seed) -> None:
    assert detect_cuts(render(random_scene(seed, hard=True)).frames) == ()


@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_an_array_that_is_not_a_frame_is_refused(frame) -> None:
    with pytest.raises(WaveOpsError, match="uint8 frame"):
        detect_cuts([frame])


def decoded(path: Path, *, count: int) -> Iterator[Frame]:
    with av.open(str(path)) as container:
        for _, frame in zip(range(count), container.decode(video=0), strict=False):
            yield frame.to_ndarray(format="rgb24")


@pytest.mark.parametrize(
    ("name", "cuts"),
    [("carphone_pristine", ()), ("bikes", (30, 76, 137, 187, 242)), ("bigbuckbunny", ()), ("blocks", ())],
)
def test_real_clips_have_the_cuts_that_a_person_sees(shared, name, cuts) -> None:
    assert detect_cuts(decoded(shared / "clips" / f"{name}.mp4", count=300)) == cuts


def test_joined_real_clips_are_cut_at_their_joins(shared) -> None:
    names = ("carphone_pristine", "blocks", "bigbuckbunny", "bikes")
    frames = (frame for name in names for frame in decoded(shared / "clips" / f"{name}.mp4", count=20))
    assert detect_cuts(frames) == (20, 40, 60)
