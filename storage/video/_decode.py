"""Decoding of a video file to upright RGB frames with their timestamps, one at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import av.error
import numpy as np
import numpy.typing as npt

from storage.errors import VideoError
from storage.video._colour import ToRgb
from storage.video._orientation import Orientation

__all__ = ["VideoInfo", "final_duration", "opened", "origin", "probe", "read_frames"]

Frame: TypeAlias = npt.NDArray[np.uint8]

# ffmpeg decodes text as terminal art and opens the files that a playlist names: neither is a video here
_NO_VIDEO_FORMATS = frozenset({"tty", "concat", "hls", "dash", "lavfi"})
_DEFAULT_RATE = Fraction(25)
_LONGEST_STEP_BACK = 1  # seconds; a longer one is a restart of the clock, as in joined recordings
_LONGEST_LAST_FRAME = 10  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """Properties of a video file."""

    width: int
    """Pixels of an upright frame, as returned by `read_frames`."""
    height: int
    frame_count: int
    """As the file states it, else the number of packets; a damaged file may decode to fewer frames."""
    rate: Fraction
    """Mean frames per second."""
    time_base: Fraction
    """Seconds per tick of the timestamps."""
    duration: float
    """Seconds of the video stream."""
    rotation: int
    """Degrees clockwise that turn a stored frame upright; `read_frames` applies them."""
    pixel_aspect: Fraction
    """Width of a pixel over its height, upright."""
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Return the properties of a video file, from its header and its first frame.

    Raises:
        VideoError: if there is no such file, it is not a video, or no frame can be decoded.
    """
    with opened(path) as (container, stream):
        first = next(_decoded(container, stream), None)
        if first is None:
            raise VideoError(f"{path} has no frame that can be decoded")
        turn = Orientation.of(first)
        height, width = turn.size((first.height, first.width))
        aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
        rate = Fraction(stream.average_rate or stream.guessed_rate or _DEFAULT_RATE)
        count = stream.frames or _count_packets(path)
        return VideoInfo(
            width=width,
            height=height,
            frame_count=count,
            rate=rate,
            time_base=stream.time_base,
            duration=float(_duration(container, stream) or count / rate),
            rotation=turn.degrees,
            pixel_aspect=1 / aspect if turn.transposed else aspect,
            has_audio=any(audio.codec_context is not None for audio in container.streams.audio),
        )


def read_frames(path: str | Path) -> Iterator[tuple[int, Frame]]:
    """Yield timestamps and upright frames, one pair at a time.

    Timestamps are the file's own minus its start, since the clock of a recording (as in a transport stream) may start
    anywhere; they are repaired where they are missing or do not increase. Damaged frames are left out.

    Yields:
        The timestamp, in ticks of `VideoInfo.time_base`, strictly increasing, and the RGB frame, uint8 (height, width,
        3); all frames have the first one's size.

    Raises:
        VideoError: if there is no such file, it is not a video, or no frame can be decoded.
    """
    with opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        timeline = _Timeline(stream.time_base, Fraction(stream.average_rate or _DEFAULT_RATE))
        start = round(origin(container) / stream.time_base)
        to_rgb, turn = ToRgb(), None
        for frame in _decoded(container, stream):
            # Only once: reading a frame's side data makes a reference cycle, so that its memory waits for the collector
            turn = turn or Orientation.of(frame)
            pts = frame.pts if frame.pts is not None else frame.dts
            yield timeline.place(None if pts is None else pts - start), turn.apply(to_rgb(frame))
        if turn is None:
            raise VideoError(f"{path} has no frame that can be decoded")


def final_duration(info: VideoInfo, timestamps: list[int]) -> int:
    """Return the duration of the last frame in ticks: the rest of the stream's duration, or the mean step.

    The mean step is used if that rest is negative or longer than ten seconds, as in damaged files.
    """
    elapsed = timestamps[-1] - timestamps[0]
    rest = round(Fraction(info.duration) / info.time_base) - elapsed
    if 0 < rest * info.time_base < _LONGEST_LAST_FRAME:
        return rest
    return max(1, round(1 / (info.rate * info.time_base)))


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open a video file and yield its container and video stream.

    Raises:
        VideoError: if there is no such file or it has no video stream.
    """
    file = Path(path)
    if file.is_dir():
        raise VideoError(f"{path} is a folder, not a video file")
    if not file.is_file():
        raise VideoError(f"there is no file {path}")
    with contextlib.ExitStack() as stack:
        try:
            # An absolute path, so that a file named "http:x" is not a URL; a whitelist, so that it opens no other files
            container = stack.enter_context(
                av.open(str(file.absolute()), options={"protocol_whitelist": "file"}, metadata_errors="replace")
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{path} is not a video that can be read ({_reason(error)})") from error
        yield container, _video_stream(path, container)


def origin(container: Any) -> Fraction:
    """Return the time on the file's clock, in seconds, that becomes zero for video and audio alike.

    It is the earliest start of all video and audio streams if that is positive, else the start of the video or 0.
    Audio may start before 0: that is its encoder's delay, which players skip, and not an offset of the file.
    """
    video, audio = (
        [stream.start_time * stream.time_base for stream in streams if stream.start_time is not None]
        for streams in (container.streams.video, container.streams.audio)
    )
    earliest = min([*video, *audio], default=Fraction(0))
    return earliest if earliest > 0 else min([Fraction(0), *video])


class _Timeline:
    """Repair of timestamps, so that they strictly increase."""

    def __init__(self, time_base: Fraction, rate: Fraction) -> None:
        self._step = max(1, round(1 / (rate * time_base)))
        self._limit = _LONGEST_STEP_BACK / time_base
        self._offset = 0
        self._last: int | None = None

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
            return self._last + 1  # a frame out of order, as short as possible: later frames keep their times
        self._offset = self._last + self._step - pts
        return self._last + self._step


def _video_stream(path: str | Path, container: Any) -> Any:
    if not _NO_VIDEO_FORMATS.isdisjoint(container.format.name.split(",")):
        raise VideoError(f"{path} is not a video (it looks like {container.format.long_name})")
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        raise VideoError(f"{path} has no video stream")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{path} uses a codec that this installation cannot decode")
    return stream


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & stream.disposition.__class__.attached_pic)


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yield all frames that can be decoded: skip damaged packets, and stop where the file is truncated."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return
        if packet is None:
            return
        with contextlib.suppress(av.error.FFmpegError):
            yield from packet.decode()


def _count_packets(path: str | Path) -> int:
    with opened(path) as (container, stream), contextlib.suppress(av.error.FFmpegError):
        count = 0
        for packet in container.demux(stream):
            count += packet.size > 0 and not packet.is_discard
    return count


def _duration(container: Any, stream: Any) -> Fraction | None:
    if stream.duration:
        return Fraction(stream.duration * stream.time_base)
    return Fraction(container.duration, av.time_base) if container.duration else None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
