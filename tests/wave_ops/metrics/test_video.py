from __future__ import annotations

import math

import numpy as np
import pytest

from wave_ops.errors import WaveOpsError
from wave_ops.metrics import colour_drift, keyframe_pulse

SIZE = (12, 16)
KEYFRAMES = (0, 4, 8)


def clip(saturations: list[float]) -> np.ndarray:
    """Return frames of one colour each: of value 200, and of a saturation of 255."""
    low = np.rint(200 * (1 - np.array(saturations) / 255)).astype(np.uint8)
    frames = np.full((len(saturations), *SIZE, 3), 200, np.uint8)
    frames[..., 1:] = low[:, None, None, None]
    return frames


EVERYWHERE = np.ones((9, *SIZE), bool)
STEADY = clip([150.0] * 9)
BEATING = clip([150, 160, 180, 160, 150, 160, 180, 160, 150])


def test_the_pulse_is_the_root_mean_square_off_the_line_between_keyframes() -> None:
    expected = math.sqrt((4 * 10**2 + 2 * 30**2) / 6)
    assert keyframe_pulse(BEATING, STEADY, EVERYWHERE, KEYFRAMES) == pytest.approx(expected, rel=0.05)


def test_a_change_along_the_line_between_keyframes_is_no_pulse() -> None:
    rising = clip([100, 110, 120, 130, 140, 130, 120, 110, 100])
    assert keyframe_pulse(rising, STEADY, EVERYWHERE, KEYFRAMES) < 1.5  # rounding to 8 bits


def test_what_beats_in_the_true_edit_too_is_no_pulse() -> None:
    assert keyframe_pulse(BEATING, BEATING, EVERYWHERE, KEYFRAMES) == 0


def test_only_the_mask_and_intervals_with_visible_keyframes_count() -> None:
    masks = EVERYWHERE.copy()
    masks[:, :, 8:] = False
    outside = STEADY.copy()
    outside[:, :, 8:] = BEATING[:, :, 8:]
    assert keyframe_pulse(outside, STEADY, masks, KEYFRAMES) == 0
    masks[4] = False
    assert math.isnan(keyframe_pulse(BEATING, STEADY, masks, KEYFRAMES))
    assert math.isnan(keyframe_pulse(BEATING, STEADY, EVERYWHERE, tuple(range(9))))


def test_the_pulse_of_contrast_is_that_of_the_spread_of_lightness() -> None:
    steady = STEADY.copy()
    steady[:, ::2] = 100
    faded = steady.copy()
    faded[[1, 2, 3, 5, 6, 7], ::2] = 160
    assert keyframe_pulse(faded, steady, EVERYWHERE, KEYFRAMES, of="contrast") > 5
    assert keyframe_pulse(steady, steady, EVERYWHERE, KEYFRAMES, of="contrast") == 0


def test_drift_is_the_distance_in_lab_from_the_first_tenth_to_the_last() -> None:
    frames = np.repeat(STEADY[:1], 20, axis=0)
    masks = np.ones((20, *SIZE), bool)
    drifted = frames.copy()
    drifted[2:18] = 0  # the middle does not count
    assert colour_drift(drifted, frames, [masks]) == 0
    grey, darker = np.full_like(frames, 119), np.full_like(frames, 119)
    darker[18:] = 94
    assert colour_drift(darker, grey, [masks]) == pytest.approx(50.03 - 39.9, abs=0.3)  # L of the two greys
    assert colour_drift(darker, darker, [masks]) == 0


def test_drift_is_averaged_over_the_regions_that_are_seen_at_both_ends() -> None:
    frames = np.full((10, *SIZE, 3), 119, np.uint8)
    left, right, gone = (np.zeros((10, *SIZE), bool) for _ in range(3))
    left[:, :, :8], right[:, :, 8:], gone[:5] = True, True, True
    drifted = frames.copy()
    drifted[9, :, :8] = 94
    both = colour_drift(drifted, frames, [left, right])
    assert both == pytest.approx(colour_drift(drifted, frames, [left]) / 2) != 0
    assert colour_drift(drifted, frames, [left, right, gone]) == both
    assert math.isnan(colour_drift(drifted, frames, [gone]))


@pytest.mark.usefixtures("unchecked")
def test_clips_that_do_not_fit_together_are_refused() -> None:
    for arguments in ((STEADY[:4], STEADY, EVERYWHERE), (STEADY, STEADY, EVERYWHERE[:, :4])):
        with pytest.raises(WaveOpsError, match="one mask each"):
            keyframe_pulse(*arguments, KEYFRAMES)
        with pytest.raises(WaveOpsError, match="one mask each"):
            colour_drift(*arguments[:2], [arguments[2]])
