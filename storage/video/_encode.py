"""Encoding of frames with timestamps, and audio, to a file."""

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
from storage.video._formats import Encoding, choose_encoding, silence_encoders
from storage.video._labels import Labels, append_xmp
from storage.video._notes import Notes
from storage.video._pictures import write_gif, write_pictures

__all__ = ["write_video"]

Frame: TypeAlias = npt.NDArray[np.uint8]

_SUFFIXES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "mkv"}
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
    encoding: Encoding | None = None,
    pixel_aspect: Fraction = Fraction(1),
    labels: Labels | None = None,
    notes: Notes | None = None,
) -> None:
    """Write RGB frames as a video of BT.709 colours, a GIF, or a zip of pictures, one frame in memory at a time.

    The bytes depend on the input alone. Where a pixel format requires even sides, an odd one is extended by a copy of
    its last row or column. In MP4 and QuickTime the timestamps are exact; Matroska and WebM round them to milliseconds,
    GIF to hundredths of a second.

    Args:
        path: the file; it appears, or replaces an older one, when complete.
        frames: uint8 (height, width, 3), all of one size, as many as timestamps.
        timestamps: ticks of `time_base`, strictly increasing.
        time_base: seconds per tick.
        last_duration: duration of the last frame in ticks; the mean step by default.
        audio: return value of `read_audio`, or the file of `copy_audio`; copied, or encoded as AAC or Opus where the
            container does not support its codec.
        encoding: how; by default H.264 in the container that the file's suffix names: .mp4, .m4v, .mov or .mkv.
        pixel_aspect: width of a pixel over its height.
        labels: what the file says of itself; nothing by default.
        notes: where to note what the file lacks.

    Raises:
        VideoError: if there are no frames, frames and timestamps do not match, or the file cannot be written.
    """
    target, notes = Path(path), Notes() if notes is None else notes
    encoding = encoding or _by_suffix(target)
    if target.is_dir():
        raise VideoError(f"cannot write {target}: it is a folder")
    clock = _Clock.of(timestamps, time_base=time_base, last_duration=last_duration)
    pictures = _checked(frames, len(clock.times), encoding.even, notes)
    first = next(pictures)
    with _named_errors(target), atomic_path(target) as temporary:
        if encoding.container == "png":
            notes.no_sound_or_times(has_audio=audio is not None)
            times = [time * time_base for time in clock.times]
            write_pictures(temporary, itertools.chain([first], pictures), times=times, labels=labels)
            return
        if encoding.container == "gif":
            notes.gif(has_audio=audio is not None)
            ends = [(time + clock.durations[time]) * time_base for time in clock.times]
            write_gif(
                temporary,
                itertools.chain([first], pictures),
                ends=ends,
                start=clock.times[0] * time_base,
                notes=notes,
            )
            if labels is not None:
                append_xmp(temporary, "gif", labels.xmp)
            return
        with _container(temporary, encoding.container, clock) as container:
            container.metadata.update(labels.tags if labels else {})
            stream = _add_stream(container, clock, size=first.shape[:2], encoding=encoding, pixel_aspect=pixel_aspect)
            sound = None if audio is None else AudioCopy(audio, container, notes)
            from_rgb = FromRgb(encoding.pixel_format, chroma=encoding.chroma)
            for time, picture in zip(clock.times, itertools.chain([first], pictures), strict=True):
                frame = from_rgb(picture)
                frame.pts, frame.time_base = time, clock.time_base
                container.mux(clock.timed(stream.encode(frame)))
                if sound is not None:
                    sound.write_until(time * clock.time_base)
            container.mux(clock.timed(stream.encode(None)))
            if sound is not None:
                sound.write_until(None)
        if labels is not None:
            append_xmp(temporary, encoding.container, labels.xmp)


def _by_suffix(target: Path) -> Encoding:
    if target.suffix.lower() not in _SUFFIXES:
        raise VideoError(f"cannot write {target}: the suffix must be one of {', '.join(_SUFFIXES)}")
    return choose_encoding(_SUFFIXES[target.suffix.lower()])


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
def _named_errors(target: Path) -> Iterator[None]:
    """Let an error of writing name the file that was to be written."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"cannot write {target} ({getattr(error, 'strerror', None) or error})") from error


@contextlib.contextmanager
def _container(path: Path, kind: str, clock: _Clock) -> Iterator[Any]:
    """Yield a container to write to."""
    # faststart: the index goes to the front, so that a browser plays the file while it loads. movie_timescale: the unit
    # of a stream's start, which by default would be rounded to milliseconds. bitexact: Matroska would have a random
    # number in its header
    if kind in ("mp4", "mov"):
        options = {"movflags": "+faststart", "movie_timescale": str(clock.fine_ticks)}
    else:
        options = {"fflags": "+bitexact"}
    muxer = "matroska" if kind == "mkv" else kind
    with av.open(str(path.absolute()), "w", format=muxer, options=options) as container:
        yield container


def _add_stream(
    container: Any, clock: _Clock, *, size: Sequence[int], encoding: Encoding, pixel_aspect: Fraction
) -> Any:
    silence_encoders()
    stream = container.add_stream(encoding.encoder, rate=clock.rate, options=encoding.options)
    stream.height, stream.width = size
    stream.pix_fmt = encoding.pixel_format
    if encoding.bit_rate is not None:
        stream.bit_rate = encoding.bit_rate
    if encoding.codec == "hevc" and encoding.container in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"  # the only one that Apple's players take
    stream.time_base = stream.codec_context.time_base = clock.time_base
    stream.codec_context.sample_aspect_ratio = pixel_aspect
    stream.codec_context.thread_count = 1
    tag_as_bt709(stream.codec_context)
    return stream


def _checked(frames: Iterable[Frame], count: int, even: tuple[int, int], notes: Notes) -> Iterator[Frame]:
    """Yield the frames, extended to sides that are multiples of two numbers, those of height and width.

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
        padded = np.pad(frame, ((0, -shape[0] % even[0]), (0, -shape[1] % even[1]), (0, 0)), mode="edge")
        if padded.shape != shape:
            notes.sides_made_even((shape[0], shape[1]), (padded.shape[0], padded.shape[1]))
        yield padded
    if seen < count:
        raise VideoError(f"there are {seen} frames for {count} timestamps" if seen else "there are no frames to write")
