"""Detection of dissolves and fades between shots, from thumbnails.

While one picture dissolves into another, the contrast falls and rises again, since the details of two unrelated
pictures average out: halfway, the variance is half of what it was (Alattar, ISCAS 1993). Motion does not change that.
In a fade, the picture becomes uniform, and another one appears.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Transition", "TransitionFinder"]

_SIDE = 16
_BLOCK = 4096  # thumbnails that are stored together: 3 MB
_UNIFORM = 0.02  # contrast, the standard deviation on [0, 1], below which a frame counts as empty
_REACHES = (4, 6, 8, 10, 13, 16, 20, 24)  # frames from the middle of a dissolve to the pictures on both sides
_DIP = 0.72  # of the mean variance on both sides; 0.5 halfway through a dissolve of equal contrasts
_LEAST_PART = 0.25  # of either picture in the middle frame
_EXPLAINED = 0.7  # of the middle frame's variance, by the two pictures
_GAP = 3  # frames between two middles of one dissolve
_LONGEST_RAMP = 48  # frames
_STEADY = 1.02  # growth of the contrast within some frames, of a ramp
_LOOK_AHEAD = 3
_SHORT_PAUSE = 12  # frames without a picture that belong to the fade; more are a shot of their own

Thumbnails = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A gradual change from one shot to another, or of the light."""

    first: int
    """Index of the first frame in it."""
    last: int
    cuts: tuple[int, ...]
    """First frames of the shots that begin in it; none where the same picture returns."""

    def contains(self, frame: int) -> bool:
        """Return whether a cut at a frame belongs to the transition."""
        return self.first <= frame <= self.last + 1


class TransitionFinder:
    """Finder of dissolves and fades; it stores a thumbnail of 768 bytes for each frame."""

    def __init__(self, is_new: Callable[[NDArray[np.uint8], NDArray[np.uint8]], bool]) -> None:
        """Begin before the first frame, with what decides whether the second of two pictures is a new one."""
        self._is_new = is_new
        self._blocks: list[Thumbnails] = []
        """Many thumbnails in an array: one by one among the frames, they would keep the memory of frames from reuse."""
        self._variances: list[float] = []

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Add the next frame, uint8 (height, width, 3)."""
        block, place = divmod(len(self._variances), _BLOCK)
        if block == len(self._blocks):
            self._blocks.append(np.empty((_BLOCK, _SIDE, _SIDE, 3), np.uint8))
        thumbnail = self._blocks[block][place]
        cv2.resize(frame, (_SIDE, _SIDE), dst=thumbnail, interpolation=cv2.INTER_AREA)
        self._variances.append(float((_details(thumbnail) ** 2).mean()))

    def transitions(self) -> list[Transition]:
        """Return all transitions of the frames that were added, in no order."""
        variances = np.array(self._variances)
        fades = list(self._fades(np.sqrt(variances)))
        # A fade has frames with less contrast than those on both sides, too
        apart = (each for each in self._dissolves(variances) if not any(fade.contains(each.cuts[0]) for fade in fades))
        return [*fades, *apart]

    def _fades(self, contrast: NDArray[np.float64]) -> Iterator[Transition]:
        """Yield the runs of frames without a picture, with the ramps on both sides."""
        for start, stop in _runs(contrast < _UNIFORM):
            first = _ramp_end(contrast, start - 1, -1)
            last = _ramp_end(contrast, stop, 1)
            if start == 0 or stop == len(contrast):
                cuts: tuple[int, ...] = ()
            elif stop - start > _SHORT_PAUSE:
                cuts = (start, stop)
            else:
                cuts = ((start + stop) // 2,) if self._differ(first, last) else ()
            yield Transition(first=max(first, 0), last=min(last, len(contrast) - 1), cuts=cuts)

    def _dissolves(self, variances: NDArray[np.float64]) -> Iterator[Transition]:
        found = [(middle, reach) for middle in self._dips(variances) if (reach := self._reach(variances, middle))]
        groups: list[list[tuple[int, int]]] = []
        for middle, reach in found:
            if groups and middle - groups[-1][-1][0] <= _GAP:
                groups[-1].append((middle, reach))
            else:
                groups.append([(middle, reach)])
        for group in groups:
            middle, reach = min(group, key=lambda each: variances[each[0]])
            if self._differ(middle - reach, middle + reach):
                yield Transition(first=middle - reach, last=middle + reach, cuts=(middle,))

    def _dips(self, variances: NDArray[np.float64]) -> list[int]:
        """Return the frames with much less contrast than those at some distance on both sides."""
        low = np.zeros(len(variances), bool)
        for reach in _REACHES:
            if 2 * reach < len(variances):
                low[reach:-reach] |= _is_dip(variances[: -2 * reach], variances[reach:-reach], variances[2 * reach :])
        return np.flatnonzero(low).tolist()

    def _reach(self, variances: NDArray[np.float64], middle: int) -> int:
        """Return the distance to the two frames that explain the middle one best; 0 where none do."""
        best, result = _EXPLAINED, 0
        for reach in _REACHES:
            first, last = middle - reach, middle + reach
            if first < 0 or last >= len(variances):
                break
            if _is_dip(variances[first], variances[middle], variances[last]):
                explained = _explained(*(_details(self._thumbnail(each)) for each in (first, middle, last)))
                if explained > best:
                    best, result = explained, reach
        return result

    def _differ(self, first: int, last: int) -> bool:
        return self._is_new(self._thumbnail(first), self._thumbnail(last))

    def _thumbnail(self, frame: int) -> Thumbnails:
        found: Thumbnails = self._blocks[frame // _BLOCK][frame % _BLOCK]
        return found


def _details(thumbnail: Thumbnails) -> NDArray[np.float32]:
    """Return the pixels on [0, 1] less the mean of each channel."""
    values = np.divide(thumbnail.reshape(-1, 3), 255, dtype=np.float32)
    result: NDArray[np.float32] = values - values.mean(axis=0)
    return result


def _is_dip(before: NDArray[np.float64], middle: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where the middle has less variance than both sides, which a fade's ramp does not."""
    lowest = np.minimum(before, after)
    result: NDArray[np.bool_] = (lowest > _UNIFORM**2) & (middle < lowest) & (middle < _DIP * (before + after) / 2)
    return result


def _explained(first: NDArray[np.float32], middle: NDArray[np.float32], last: NDArray[np.float32]) -> float:
    """Return the fraction of a frame's variance that a mix of two others explains; 0 without enough of either."""
    pictures = np.stack([first.ravel(), last.ravel()], axis=1)
    parts, *_ = np.linalg.lstsq(pictures, middle.ravel(), rcond=None)
    if parts.min() < _LEAST_PART:
        return 0.0
    return 1 - float(((middle.ravel() - pictures @ parts) ** 2).sum() / (middle**2).sum())


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return start and stop of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _ramp_end(contrast: NDArray[np.float64], place: int, step: int) -> int:
    """Return the last frame, from a place on, up to which the contrast grows."""
    end = place
    while abs(end - place) < _LONGEST_RAMP and 0 <= end + step < len(contrast):
        ahead = [end + step * (1 + i) for i in range(_LOOK_AHEAD)]
        if max(contrast[i] for i in ahead if 0 <= i < len(contrast)) <= _STEADY * contrast[end]:
            break
        end += step
    return end
