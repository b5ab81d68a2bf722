"""Encoding of frames with timestamps, and audio, to an H.264 file."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import av.error
import numpy as np
import numpy.typing as npt

from storage.errors import VideoError
from storage.files import atomic_path
from storage.video._audio import AudioCopy
from storage.video._colour import FromRgb, tag_as_bt709
from storage.video._notes import Notes

__all__ = ["write_video"]

Frame: TypeAlias = npt.NDArray[np.uint8]

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_FINE = 10_000  # ticks per second, at least
_LARGEST_INT = 2**31 - 1


def write_video(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    timestamps: Sequence[int],
    time_base: Fraction,
    last_duration: int | None = None,
    audio: bytes | Path | None = None,
    crf: int = 16,
    pixel_aspect: Fraction = Fraction(1),
    notes: Notes | None = None,
) -> None:
    """Write RGB frames as H.264, yuv420p, BT.709, one frame in memory at a time.

    The bytes depend on the input alone. yuv420p requires even sides, so an odd one is extended by a copy of its last
    row or column. In MP4 and QuickTime the timestamps are exact; Matroska rounds them to milliseconds.

    Args:
        path: the file, with the suffix .mp4, .m4v, .mov or .mkv; it appears, or replaces an older one, when complete.
        frames: uint8 (height, width, 3), all of one size, as many as timestamps.
        timestamps: ticks of `time_base`, strictly increasing.
        time_base: seconds per tick.
        last_duration: duration of the last frame in ticks; the mean step by default.
        audio: return value of `read_audio`, or the file of `copy_audio`; copied, or encoded as AAC where the container
            does not support its codec.
        crf: x264's quality, 0 (lossless) to 51.
        pixel_aspect: width of a pixel over its height.
        notes: where to note what the file lacks.

    Raises:
        VideoError: if there are no frames, frames and timestamps do not match, or the file cannot be written.
    """
    target, notes = Path(path), Notes() if notes is None else notes
    clock = _Clock.of(timestamps, time_base=time_base, last_duration=last_duration)
    pictures = _checked(frames, len(clock.times), notes)
    size = (first := next(pictures)).shape[:2]
    with _container(target, clock) as container:
        stream = _add_stream(container, clock, size=size, crf=crf, pixel_aspect=pixel_aspect)
        sound = None if audio is None else AudioCopy(audio, container, notes)
        from_rgb = FromRgb()
        for time, picture in zip(clock.times, itertools.chain([first], pictures), strict=True):
            frame = from_rgb(picture)
            frame.pts, frame.time_base = time, clock.time_base
            container.mux(clock.timed(stream.encode(frame)))
            if sound is not None:
                sound.write_until(time * clock.time_base)
        container.mux(clock.timed(stream.encode(None)))
        if sound is not None:
            sound.write_until(None)


@dataclass(frozen=True, slots=True)
class _Clock:
    """Start and duration of each frame, in ticks of the time base."""

    times: tuple[int, ...]
    time_base: Fraction
    durations: dict[int, int]

    @classmethod
    def of(cls, timestamps: Sequence[int], *, time_base: Fraction, last_duration: int | None) -> _Clock:
        times = tuple(int(time) for time in timestamps)
        steps = [after - before for before, after in itertools.pairwise(times)]
        if not times:
            raise VideoError("there are no frames to write")
        if any(step <= 0 for step in steps):
            raise VideoError("the timestamps of the frames must strictly increase")
        if not 0 < max(time_base.numerator, time_base.denominator) <= _LARGEST_INT or time_base <= 0:
            raise VideoError(f"a time base of {time_base} s cannot be written")
        if last_duration is not None and last_duration <= 0:
            raise VideoError(f"the duration of the last frame must be positive, got {last_duration} ticks")
        mean = round(sum(steps) / len(steps)) if steps else max(1, round(Fraction(1, 25) / time_base))
        return cls(times, time_base, dict(zip(times, [*steps, last_duration or mean], strict=True)))

    @property
    def rate(self) -> Fraction:
        """Mean frames per second."""
        mean = len(self.times) / (sum(self.durations.values()) * self.time_base)
        return max(mean, Fraction(1, 60)).limit_denominator(60060)

    @property
    def fine_ticks(self) -> int:
        """Ticks per second, a multiple of the time base's denominator so that the start of the video is exact."""
        return self.time_base.denominator * -(-_FINE // self.time_base.denominator)

    def timed(self, packets: list[Any]) -> list[Any]:
        """Set the durations of packets from their frames, since the encoder does not pass them on."""
        for packet in packets:
            packet.duration = self.durations[round(packet.pts * packet.time_base / self.time_base)]
            packet.duration = round(packet.duration * self.time_base / packet.time_base)
        return packets


@contextlib.contextmanager
def _container(target: Path, clock: _Clock) -> Iterator[Any]:
    """Yield a container to write to, which becomes the file if the context ends without an error."""
    if target.suffix.lower() not in _FORMATS:
        raise VideoError(f"cannot write {target}: the suffix must be one of {', '.join(_FORMATS)}")
    if target.is_dir():
        raise VideoError(f"cannot write {target}: it is a folder")
    kind = _FORMATS[target.suffix.lower()]
    # faststart: the index goes to the front, so that a browser plays the file while it loads. movie_timescale: the unit
    # of a stream's start, which by default would be rounded to milliseconds
    options = {} if kind == "matroska" else {"movflags": "+faststart", "movie_timescale": str(clock.fine_ticks)}
    try:
        with (
            atomic_path(target) as temporary,
            av.open(str(temporary.absolute()), "w", format=kind, options=options) as container,
        ):
            yield container
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"cannot write {target} ({getattr(error, 'strerror', None) or error})") from error


def _add_stream(container: Any, clock: _Clock, *, size: Sequence[int], crf: int, pixel_aspect: Fraction) -> Any:
    # Without B-frames packets come in the order of the frames, so that any timestamps can be kept exactly.
    # x264's macroblock tree, which the preset turns on, reads memory that was never written, so that the same frames
    # were encoded to different bytes in different processes. Without it files are about 0.6 % larger.
    options = {"crf": str(crf), "preset": "fast", "bf": "0", "mbtree": "0"}
    stream = container.add_stream("libx264", rate=clock.rate, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = clock.time_base
    stream.codec_context.sample_aspect_ratio = pixel_aspect
    stream.codec_context.thread_count = 1  # the bytes must not depend on the machine's cores
    tag_as_bt709(stream.codec_context)
    return stream


def _checked(frames: Iterable[Frame], count: int, notes: Notes) -> Iterator[Frame]:
    """Yield the frames, extended to even sides.

    Raises:
        VideoError: if a frame differs from the first in shape, is not uint8 RGB, or their number is not the expected.
    """
    shape: tuple[int, ...] | None = None
    seen = 0
    for frame in frames:
        seen += 1
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape or 0 in shape:
            raise VideoError(
                f"frames must be uint8 RGB (height, width, 3) of one size, got {frame.dtype} {frame.shape} "
                f"as frame {seen} after {shape}"
            )
        if seen > count:
            raise VideoError(f"there are more frames than the {count} timestamps")
        padded = np.pad(frame, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
        if padded.shape != shape:
            notes.sides_made_even((shape[0], shape[1]), (padded.shape[0], padded.shape[1]))
        yield padded
    if seen < count:
        raise VideoError(f"there are {seen} frames for {count} timestamps" if seen else "there are no frames to write")
