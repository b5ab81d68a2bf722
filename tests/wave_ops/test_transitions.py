"""Cuts, dissolves and fades between drawn shots, and the same for PySceneDetect where it is installed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from wave_ops import transitions as transitions_module
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import random_scene
from wave_ops.shot_detection import detect_cuts

Frame = NDArray[np.uint8]
Detector = Callable[[Sequence[Frame]], Sequence[int]]
SHOT = 60
NEAR = 3  # frames by which a cut may be off the transition


def pan(seed: int, speed: int, count: int = SHOT) -> list[Frame]:
    """Return a window of 96x128 that moves over a picture by some pixels per frame."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    whole = cv2.resize(coarse, (400, 400), interpolation=cv2.INTER_CUBIC)
    return [whole[50:146, 20 + speed * i : 148 + speed * i] for i in range(count)]


def scene(seed: int, count: int = SHOT) -> list[Frame]:
    return list(render(random_scene(seed, size=(96, 128), frame_count=count)).frames)


def mixed(first: Frame, second: Frame, part: float) -> Frame:
    return np.rint((1 - part) * first.astype(float) + part * second).astype(np.uint8)


def dissolved(shots: Sequence[list[Frame]], length: int) -> tuple[list[Frame], list[tuple[int, int]]]:
    """Join shots by dissolves; return the frames, and first and last frame of each transition."""
    frames, found = list(shots[0]), []
    for shot in shots[1:]:
        start = len(frames) - length
        found.append((start, len(frames)))
        frames[start:] = [mixed(frames[start + i], shot[i], (i + 1) / (length + 1)) for i in range(length)]
        frames += shot[length:]
    return frames, found


def faded(shots: Sequence[list[Frame]], length: int, *, level: int = 0) -> tuple[list[Frame], list[tuple[int, int]]]:
    """Join shots by fades to a grey and back."""
    frames, found, half = list(shots[0]), [], length // 2
    for shot in shots[1:]:
        start, plain = len(frames) - half, np.full_like(shot[0], level)
        found.append((start, start + length))
        frames[start:] = [mixed(frames[start + i], plain, (i + 1) / half) for i in range(half)]
        frames += [mixed(plain, shot[i], i / half) for i in range(half)] + shot[half:]
    return frames, found


def cut(shots: Sequence[list[Frame]], _: int) -> tuple[list[Frame], list[tuple[int, int]]]:
    places = [sum(map(len, shots[: number + 1])) for number in range(len(shots) - 1)]
    return [frame for shot in shots for frame in shot], [(place, place) for place in places]


def clips(speeds: Sequence[int | None]) -> Iterator[tuple[str, list[Frame], list[tuple[int, int]]]]:
    """Yield clips of three shots with their transitions, of each speed (None: a drawn scene), and clips of one shot."""
    joins = (("cut", cut, (0,)), ("dissolve", dissolved, (8, 16, 24)), ("fade", faded, (12, 24)))
    for number, speed in enumerate(speeds):
        shots = [scene(10 * number + j) if speed is None else pan(10 * number + j, speed) for j in range(3)]
        for name, join, lengths in joins:
            for length in lengths:
                yield name, *join([list(shot) for shot in shots], length)
    for seed in range(len(speeds) - 1):
        yield "none", scene(100 + seed), []
        yield "none", pan(100 + seed, seed + 1), []
        yield "none", [(frame * (1 - 0.012 * i)).astype(np.uint8) for i, frame in enumerate(pan(200 + seed, 1))], []


def counted(detect: Detector, speeds: Sequence[int | None] = (0, 1, 2, None)) -> dict[str, tuple[int, int, int]]:
    """Return how many transitions are found, how many there are, and how many cuts are wrong, by kind."""
    found, total, wrong = Counter[str](), Counter[str](), Counter[str]()
    for kind, frames, transitions in clips(speeds):
        cuts = list(detect(frames))
        for first, last in transitions:
            hits = [place for place in cuts if first - NEAR <= place <= last + NEAR]
            found[kind] += bool(hits)
            cuts = [place for place in cuts if place != (hits or [None])[0]]
        total[kind] += len(transitions)
        wrong[kind] += len(cuts)
    return {kind: (found[kind], total[kind], wrong[kind]) for kind in total}


def test_cuts_dissolves_and_fades_are_found_and_nothing_else() -> None:
    expected = {"cut": (4, 4, 0), "dissolve": (12, 12, 0), "fade": (8, 8, 0), "none": (0, 0, 0)}
    assert counted(detect_cuts, (1, None)) == expected


@pytest.mark.slow
def test_of_many_transitions_few_are_missed_and_no_cut_is_wrong() -> None:
    found = counted(detect_cuts)
    print(found)  # noqa: T201  (the table of the documentation)
    assert found == {"cut": (8, 8, 0), "dissolve": (23, 24, 0), "fade": (16, 16, 0), "none": (0, 0, 0)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [("ContentDetector",), ("AdaptiveDetector",), ("ContentDetector", "ThresholdDetector")],
)
def test_more_dissolves_are_found_than_by_pyscenedetect(names: tuple[str, ...]) -> None:
    scenedetect = pytest.importorskip("scenedetect", reason="PySceneDetect is not installed: group comparison")

    def detect(frames: Sequence[Frame]) -> list[int]:
        detectors: list[Any] = [getattr(scenedetect, name)(min_scene_len=4) for name in names]
        cuts: set[int] = set()
        for index, frame in enumerate(frames):
            time = scenedetect.FrameTimecode(index, 25.0)
            for detector in detectors:
                cuts.update(place.frame_num for place in detector.process_frame(time, frame[..., ::-1].copy()))
        for detector in detectors:
            cuts.update(place.frame_num for place in detector.post_process(time))
        return sorted(cuts)

    theirs = counted(detect)
    print(names, theirs)  # noqa: T201  (the table of the documentation)
    assert theirs["dissolve"][0] < 12


def test_thumbnails_of_a_long_shot_are_stored_together(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, _ = dissolved([pan(seed, 1, 40) for seed in (0, 1)], 12)
    expected = detect_cuts(frames)
    monkeypatch.setattr(transitions_module, "_BLOCK", 7)  # the dissolve is in several blocks
    assert detect_cuts(frames) == expected
    assert len(expected) == 1


def test_a_fade_to_white_and_a_long_black_pause_are_found() -> None:
    white, ((first, last), *_) = faded([pan(1, 1), pan(2, 1)], 16, level=255)
    assert [first <= place <= last for place in detect_cuts(white)] == [True]
    black = [np.zeros((96, 128, 3), np.uint8)] * 30
    assert detect_cuts([*pan(1, 1, 30), *black, *pan(2, 1, 30)]) == (30, 60)


def test_a_picture_that_returns_after_a_fade_is_one_shot() -> None:
    whole = pan(1, 1, 80)
    frames, _ = faded([whole[:40], whole[40:]], 12)
    assert detect_cuts(frames) == ()


def test_a_picture_that_goes_out_of_focus_and_back_is_one_shot() -> None:
    frames = [cv2.GaussianBlur(frame, (0, 0), 0.1 + 12 * np.sin(i / 60 * np.pi)) for i, frame in enumerate(pan(1, 1))]
    assert detect_cuts(frames) == ()
