"""Times of decoded frames: repaired timestamps, and the duration of the last frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median_low

__all__ = ["AudioClock", "Extent", "Timeline", "final_duration", "median_step"]

_LONGEST_STEP_BACK = 1  # seconds; a longer one is a restart of the clock, as in joined recordings
_MOST_OUT_OF_ORDER = 8  # frames; a longer step back is a restart of the clock as well
_SHORT = 2  # ticks of a packet, below which times are the same because they are rounded
_LONGEST_AUDIO_STEP_BACK = Fraction(1, 4)  # seconds: packets of audio have no other order than that of their times
_LONGEST_LAST_FRAME = 600  # seconds; a longer one is damage


class Timeline:
    """Repair of timestamps, so that they strictly increase."""

    def __init__(self, time_base: Fraction, rate: Fraction) -> None:
        """Begin before the first frame of a stream with seconds per tick, and frames per second."""
        self._step = max(1, round(1 / (rate * time_base)))
        self._limit = min(_LONGEST_STEP_BACK / time_base, Fraction(_MOST_OUT_OF_ORDER * self._step))
        self._offset = 0
        self._last: int | None = None
        self.offsets: list[int] = []
        """What is added to the file's timestamps after each restart of its clock, ticks."""
        self.repaired = 0
        """Frames that the file shows with or before the frame before."""

    def place(self, pts: int | None) -> int:
        """Return the timestamp of the next frame from the file's, both in ticks; None where the file has none."""
        self._last = self._next(pts)
        return self._last

    def _next(self, pts: int | None) -> int:
        if self._last is None:
            return pts or 0
        if pts is None:
            return self._last + self._step
        if pts + self._offset > self._last:
            return pts + self._offset
        if self._last - (pts + self._offset) < self._limit:
            self.repaired += 1
            return self._last + 1  # a frame out of order, as short as possible: later frames keep their times
        self._offset = self._last + self._step - pts
        self.offsets.append(self._offset)
        return self._last + self._step


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """What other streams need to know of a video's times."""

    end: Fraction
    """Seconds from the start to the end of the last frame."""
    skipped: Fraction = Fraction(0)
    """Seconds before that start which are left out because a later part is read."""
    is_cut: bool = False
    """Whether the file has no pictures after that though it should."""
    is_part: bool = False
    """Whether the file has more pictures after that, which are not read."""
    offsets: tuple[Fraction, ...] = ()
    """Seconds that are added to the file's times after each restart of its clock."""


class _Restarts:
    """Times of a stream that follow the restarts of the video's clock."""

    def __init__(self, offsets: Sequence[Fraction]) -> None:
        """Begin before the first packet, with what is added to the file's times after each restart, in seconds."""
        self._offsets = iter(offsets)
        self._offset = Fraction(0)
        self._last: Fraction | None = None

    def place(self, seconds: Fraction) -> Fraction:
        """Return the time of the next packet from the file's; a restart without one of the video goes on."""
        if self._last is not None and self._last - seconds >= _LONGEST_AUDIO_STEP_BACK:
            self._offset = next(self._offsets, self._offset + self._last - seconds)
        self._last = seconds
        return seconds + self._offset


class _Ascending:
    """Repair of the times of audio packets, so that they strictly increase but for restarts of the clock."""

    def __init__(self, time_base: Fraction) -> None:
        """Begin before the first packet of a stream with seconds per tick."""
        self._limit = _LONGEST_AUDIO_STEP_BACK / time_base
        self._own: int | None = None
        self._placed = self._end = 0

    def place(self, pts: int, duration: int) -> int:
        """Return the time of the next packet, in ticks; the same one again means after the packet before."""
        placed = pts
        if self._own is not None and duration > _SHORT and self._own - self._limit < pts <= self._placed:
            placed = max(self._end if pts == self._own else 0, self._placed + 1)
        self._own, self._placed, self._end = pts, placed, placed + duration
        return placed


class AudioClock:
    """Times of an audio stream's packets on the clock of the video: they strictly increase, across restarts too."""

    def __init__(self, time_base: Fraction, offsets: Sequence[Fraction] = ()) -> None:
        """Begin before the first packet, with seconds per tick, and `Extent.offsets`."""
        self._time_base = time_base
        self._read, self._moved = _Ascending(time_base), _Ascending(time_base)
        self._restarts = _Restarts(offsets)

    def place(self, pts: int, duration: int) -> int:
        """Return the time of the next packet from that in the file, and its duration, all in ticks."""
        own = self._read.place(pts, duration)
        seconds = own * self._time_base
        moved = self._restarts.place(seconds) - seconds
        return self._moved.place(own + round(moved / self._time_base), duration)


def median_step(timestamps: Sequence[int]) -> int | None:
    """Return the median time between neighbouring frames, in ticks; None for fewer than two frames."""
    steps = [after - before for before, after in pairwise(timestamps)]
    return median_low(steps) if steps else None


def final_duration(timestamps: Sequence[int], own: int, *, time_base: Fraction, rate: Fraction) -> int:
    """Return the duration of the last frame in ticks: its own, else the median step, else that of the rate.

    Args:
        timestamps: ticks of all frames.
        own: what the file says, in ticks; 0 for nothing. More than ten minutes are damage.
        time_base: seconds per tick.
        rate: frames per second.
    """
    if 0 < own * time_base <= _LONGEST_LAST_FRAME:
        return own
    return median_step(timestamps) or max(1, round(1 / (rate * time_base)))
