"""Packets of a video stream: decoded as far as they can be, and counted, so that what is missing is known."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av.error

from storage.video._timing import median_step

__all__ = ["Packets"]

_GAP = 1.5  # times the median step, in a damaged stream
_IN_DECODING_ORDER = {"avi", "asf"}
"""Formats in which packets have times in the order in which they are decoded, with B-frames too."""
_SOMETIMES_IN_DECODING_ORDER = {"mxf"}
"""Formats in which they have where the file lacks the order of showing: both times of each packet are the same then."""
_LATEST = 16  # packets, after which a frame is shown that is decoded before it is needed, in any codec


class Packets:
    """Packets of a stream, counted while they are decoded."""

    def __init__(self, container: Any, stream: Any) -> None:
        """Begin before the first packet."""
        self._container, self._stream = container, stream
        self._read = self._hidden = 0
        self._is_damaged = False
        self._earliest: int | None = None
        reordering = _IN_DECODING_ORDER | _SOMETIMES_IN_DECODING_ORDER if stream.codec_context.has_b_frames else ()
        self._order = _ShownTimes() if container.format.name in reordering else None
        self.damaged_frames = 0
        """Decoded frames that their decoder flags as damaged."""
        self.is_unreadable = False
        """Whether the file cannot be read to its end."""

    def frames(self) -> Iterator[Any]:
        """Yield all frames that can be decoded: skip damaged packets, and stop where the file is truncated."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                self._is_damaged = self.is_unreadable = True
                yield from self._kept()
                return
            if packet is None:
                return
            self._count(packet)
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self._is_damaged = True
                continue
            for frame in frames:
                self.damaged_frames += frame.is_corrupt
                yield self._placed(frame)

    def _kept(self) -> Iterator[Any]:
        """Yield the frames that the decoder has kept, where the file ends too early for a last, empty packet."""
        with contextlib.suppress(av.error.FFmpegError):
            for frame in self._stream.decode(None):
                frame.time_base = self._stream.time_base
                yield self._placed(frame)

    def _placed(self, frame: Any) -> Any:
        """Give a frame its time in the order of showing."""
        if self._order is not None:
            frame.pts = self._order.take(frame.pts)
        return frame

    def _count(self, packet: Any) -> None:
        if packet.size:
            self._read += 1
            self._hidden += packet.is_discard
            if packet.pts is not None and not packet.is_discard:
                self._earliest = packet.pts if self._earliest is None else min(self._earliest, packet.pts)
                if packet.pts != packet.dts and self._container.format.name in _SOMETIMES_IN_DECODING_ORDER:
                    self._order = None
                if self._order is not None:
                    self._order.add(packet.pts)
            self._is_damaged |= packet.is_corrupt

    def undecodable(self, first: Any) -> Fraction:
        """Return the seconds from the start of the packets to the first decoded frame: they depend on earlier ones."""
        if self._earliest is None or first.pts is None:
            return Fraction(0)
        return Fraction(max(0, first.pts - self._earliest) * self._stream.time_base)

    def missing(self, times: Sequence[int], last_duration: int) -> tuple[int, bool]:
        """Return how many frames are missing after all were read, and whether they are missing at the end.

        Frames are missing at the end if the file's index or its stated duration reaches beyond them. Others are counted
        only in a damaged file, since some streams have more packets than frames, and steps of any length.

        Args:
            times: timestamps of the decoded frames, ticks.
            last_duration: duration of the last frame, ticks.
        """
        unread, short = self._unread(), self._short_of_duration(times, last_duration)
        if not self._is_damaged:
            elsewhere = 0
        elif short > unread:  # which includes packets at the end that gave no frame
            elsewhere = _gaps(times)
        else:
            elsewhere = max(_gaps(times), self._read - self._hidden - len(times))
        return max(unread, short) + elsewhere, max(unread, short) > 0

    def _unread(self) -> int:
        """Return the packets in the file's index that it does not contain; only MP4 and QuickTime list all of them."""
        is_indexed = "mp4" in self._container.format.name.split(",")
        return max(0, len(self._stream.index_entries) - self._read) if is_indexed else 0

    def _short_of_duration(self, times: Sequence[int], last_duration: int) -> int:
        """Return the frames between the last one and the stream's end as Matroska, AVI and MXF state it."""
        stated, step = self._stated_end(times[0]), median_step(times)
        if stated is None or step is None:
            return 0
        rest = stated / self._stream.time_base - (times[-1] + last_duration)
        return int(rest // step) if rest >= _GAP * step else 0

    def _stated_end(self, first: int) -> Fraction | None:
        """Return the end of the stream in seconds; None where the file does not say it of the video alone."""
        if self._container.format.name == "avi" and self._stream.frames:
            return Fraction(self._stream.frames * self._stream.time_base)
        if self._container.format.name == "mxf" and self._stream.duration:
            return Fraction((first + self._stream.duration) * self._stream.time_base)
        return _clock_time(self._stream.metadata.get("DURATION", ""))


class _ShownTimes:
    """Times of frames where those of their packets are in the order of decoding: each frame gets the earliest left."""

    def __init__(self) -> None:
        self._left: list[int] = []
        self._undecoded: dict[int, int] = {}
        """How many packets came before one that has given no frame yet, by its time; in the order of decoding."""
        self._count = 0

    def add(self, pts: int) -> None:
        """Add the time of the next packet that is decoded."""
        heapq.heappush(self._left, pts)
        self._undecoded[pts] = self._count
        self._count += 1

    def take(self, pts: int | None) -> int | None:
        """Return the time of the next frame that is shown, of which the packet had this time."""
        before = None if pts is None else self._undecoded.pop(pts, None)
        if before is None:
            return pts
        while self._undecoded and self._undecoded[first := next(iter(self._undecoded))] < before - _LATEST:
            del self._undecoded[first]  # it gives no frame
            heapq.heappop(self._left)
        return heapq.heappop(self._left)


def _gaps(times: Sequence[int]) -> int:
    """Return the frames that the gaps between others are long enough for."""
    step = median_step(times) or 1
    return sum(round((after - before) / step) - 1 for before, after in pairwise(times) if after - before > _GAP * step)


def _clock_time(text: str) -> Fraction | None:
    """Return the seconds of a time such as 00:01:02.345000000; None for another text."""
    hours, *rest = text.split(":")
    try:
        minutes, seconds = rest
        return 3600 * Fraction(hours) + 60 * Fraction(minutes) + Fraction(seconds.strip("\0 "))
    except ValueError:
        return None
