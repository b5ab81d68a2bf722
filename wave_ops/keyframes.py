"""Keyframe indices and the intervals between keyframes: index arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from wave_ops.errors import WaveOpsError

__all__ = ["keyframe_indices", "keyframe_intervals"]


def keyframe_indices(frame_count: int, interval: int, *, cuts: Sequence[int] = ()) -> tuple[int, ...]:
    """Return every ``interval``-th frame of each shot and the shot's last frame, ascending.

    Source: WAVE (ECCV 2024): every K-th frame plus the last, K = 4 or 8. Deviates: keyframes are chosen per
    shot, so that no interval contains a cut, and the frames after the last full interval are kept.

    Args:
        frame_count: frames in the clip, at least 1.
        interval: K, at least 1.
        cuts: first frame index of each shot after the first, ascending, each in 1 .. frame_count - 1.

    Returns:
        Distinct frame indices from 0 to ``frame_count - 1``; a shot of one frame has one keyframe.

    Raises:
        WaveOpsError: a count is below 1, or the cuts do not ascend inside the clip.
    """
    if frame_count < 1:
        raise WaveOpsError(f"expected a clip of at least 1 frame, got {frame_count}")
    if interval < 1:
        raise WaveOpsError(f"expected a keyframe interval of at least 1 frame, got {interval}")
    edges = (0, *cuts, frame_count)
    if not _ascends(edges):
        raise WaveOpsError(f"expected cuts that ascend between 1 and {frame_count - 1}, got {tuple(cuts)}")
    # A set, because the last frame of a shot may be a K-th frame too
    shots = (sorted({*range(start, end, interval), end - 1}) for start, end in pairwise(edges))
    return tuple(index for shot in shots for index in shot)


def keyframe_intervals(keyframes: Sequence[int], *, cuts: Sequence[int] = ()) -> tuple[tuple[int, int], ...]:
    """Return the pairs (a, b) of neighbouring keyframes of one shot, ascending, never across a cut.

    A shot of one keyframe yields (a, a). The intervals, ends included, cover every frame.

    Args:
        keyframes: distinct frame indices, ascending, as `keyframe_indices` returns them for the same cuts.
        cuts: first frame index of each shot after the first.

    Raises:
        WaveOpsError: the keyframes do not ascend, or the frames on both sides of a cut are not keyframes.
    """
    if not keyframes or not _ascends(keyframes):
        raise WaveOpsError(f"expected ascending keyframes, at least one, got {tuple(keyframes)}")
    places = {frame: place for place, frame in enumerate(keyframes)}
    if any(cut not in places or cut - 1 not in places for cut in cuts):
        raise WaveOpsError(f"expected a keyframe on both sides of every cut of {tuple(cuts)}")
    edges = (0, *(places[cut] for cut in cuts), len(keyframes))
    shots = (keyframes[start:end] for start, end in pairwise(edges))
    return tuple(interval for shot in shots for interval in _shot_intervals(shot))


def _shot_intervals(shot: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple(pairwise(shot)) if len(shot) > 1 else ((shot[0], shot[0]),)


def _ascends(values: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(values))
