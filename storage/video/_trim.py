"""Trim: the part of a video that is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Trim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """The frames that begin in a range of time, and of these a range of indices.

    Times are compared in whole milliseconds, so that 0.067 is the third frame of 30 per second.
    """

    start: float = 0.0
    """Seconds from the start of the video."""
    end: float | None = None
    """Seconds, which the frames begin before; None for the end of the video."""
    first: int = 0
    """Index of the first frame, counted from `start`."""
    stop: int | None = None
    """Index after that of the last frame; None for all."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self == Trim()

    @property
    def begins_later(self) -> bool:
        """Whether a start is left out."""
        return self.start > 0 or self.first > 0

    def is_before(self, seconds: Fraction) -> bool:
        """Return whether a frame that begins at a time comes before the range of time."""
        return _ms(seconds) < _ms(self.start)

    def is_after(self, seconds: Fraction) -> bool:
        """Return whether a frame that begins at a time comes after the range of time."""
        return self.end is not None and _ms(seconds) >= _ms(self.end)

    def count(self, frames: int, rate: float) -> int:
        """Estimate how many frames are read of a video with so many frames, at a mean rate per second."""
        low = min(frames, math.ceil(self.start * rate - _SLACK))
        high = frames if self.end is None else min(frames, math.ceil(self.end * rate - _SLACK))
        inside = max(0, high - low)
        return max(0, (inside if self.stop is None else min(inside, self.stop)) - self.first)


_SLACK = 1e-3  # of a frame, since a rate is not exact


def _ms(seconds: float | Fraction) -> int:
    return round(Fraction(str(seconds)) * 1000)
