from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wave_ops.errors import WaveOpsError
from wave_ops.keyframes import keyframe_indices, keyframe_intervals


@st.composite
def clips(draw: st.DrawFn) -> tuple[int, int, tuple[int, ...]]:
    count = draw(st.integers(1, 60))
    cuts = draw(st.sets(st.integers(1, count - 1), max_size=5)) if count > 1 else set()
    return count, draw(st.integers(1, 12)), tuple(sorted(cuts))


@pytest.mark.parametrize(
    ("count", "interval", "cuts", "keyframes", "intervals"),
    [
        (1, 4, (), (0,), ((0, 0),)),
        (2, 4, (), (0, 1), ((0, 1),)),
        (4, 4, (), (0, 3), ((0, 3),)),
        (9, 4, (), (0, 4, 8), ((0, 4), (4, 8))),
        (11, 4, (), (0, 4, 8, 10), ((0, 4), (4, 8), (8, 10))),
        (10, 4, (6,), (0, 4, 5, 6, 9), ((0, 4), (4, 5), (6, 9))),
        (6, 4, (5,), (0, 4, 5), ((0, 4), (5, 5))),
        (3, 1, (1, 2), (0, 1, 2), ((0, 0), (1, 1), (2, 2))),
    ],
)
def test_keyframes_and_intervals_of_known_clips(count, interval, cuts, keyframes, intervals) -> None:
    assert keyframe_indices(count, interval, cuts=cuts) == keyframes
    assert keyframe_intervals(keyframes, cuts=cuts) == intervals


@given(clips())
def test_intervals_cover_every_frame_and_contain_no_cut(clip: tuple[int, int, tuple[int, ...]]) -> None:
    count, interval, cuts = clip
    intervals = keyframe_intervals(keyframe_indices(count, interval, cuts=cuts), cuts=cuts)
    assert {frame for a, b in intervals for frame in range(a, b + 1)} == set(range(count))
    assert not any(a < cut <= b for a, b in intervals for cut in cuts)
    assert all(b - a <= interval for a, b in intervals)


@given(clips())
def test_keyframes_ascend_and_contain_both_ends_of_each_shot(clip: tuple[int, int, tuple[int, ...]]) -> None:
    count, interval, cuts = clip
    keyframes = keyframe_indices(count, interval, cuts=cuts)
    assert list(keyframes) == sorted(set(keyframes))
    assert {0, count - 1, *cuts, *(cut - 1 for cut in cuts)} <= set(keyframes)


@pytest.mark.parametrize(
    ("count", "interval", "cuts"),
    [(0, 4, ()), (5, 0, ()), (5, 4, (0,)), (5, 4, (5,)), (5, 4, (3, 2)), (5, 4, (2, 2)), (5, 4, (-1,))],
)
def test_impossible_clips_are_refused(count, interval, cuts) -> None:
    with pytest.raises(WaveOpsError, match="expected"):
        keyframe_indices(count, interval, cuts=cuts)


@pytest.mark.parametrize(("keyframes", "cuts"), [((), ()), ((0, 4, 4), ()), ((4, 0), ()), ((0, 4, 8), (4,))])
def test_keyframes_that_do_not_fit_the_cuts_are_refused(keyframes, cuts) -> None:
    with pytest.raises(WaveOpsError, match="expected"):
        keyframe_intervals(keyframes, cuts=cuts)
