"""Comparison of an edited video with its source: everything but the pictures should be the same."""

from __future__ import annotations

import contextlib
import itertools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from storage.errors import VideoError
from storage.video._channels import take_channels
from storage.video._decode import FrameReader, VideoInfo, probe
from storage.video._notes import Notes
from storage.video._source import opened
from storage.video._timing import AudioClock, Extent
from storage.video._trim import Trim

__all__ = ["VideoCheck", "check_video_pair"]

_SYNC = Fraction(1, 1000)  # seconds by which a packet, or sound that was encoded again, may be off
_LONGEST_LAG = 0.5  # seconds within which sound is looked for
_ENVELOPE_RATE = 1000  # values per second
_SAMPLES = 16  # of an envelope's value
_BT709, _LIMITED = 1, 1
_OUTSIDE_PSNR = 30  # dB
_VISIBLE = 16  # of 255
_BRIGHT = 127  # of 255


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoCheck:
    """One property of both videos."""

    name: str
    passed: bool
    source: str
    """What the source has, in words."""
    output: str


def check_video_pair(
    source: str | Path, output: str | Path, *, trim: Trim | None = None, mask: str | Path | None = None
) -> tuple[list[VideoCheck], list[str]]:
    """Compare an edited video with its source; pictures are compared only outside of a mask.

    Args:
        source: the source.
        output: the edited video.
        trim: the part of the source that was edited; all by default.
        mask: a picture, or a video with a frame for each one of the output, of the source's size: bright where the edit
            may change something. Outside of it the PSNR to the source must be at least 30 dB.

    Returns:
        The checks, and notes on what reading the source loses or changes.

    Raises:
        VideoError: if one of them cannot be read, or the mask does not fit.
    """
    notes = Notes()
    before = _Video(source, notes, trim)
    after = _Video(output, Notes(), has_lead=before.extent.skipped > 0, first=before.times[0])
    checks = [
        *_timing_checks(before, after),
        *_picture_checks(before.info, after.info),
        _colour_check(source, output),
        *_audio_checks(before, after),
        *([] if mask is None else [_outside_check(source, output, mask, trim)]),
    ]
    return checks, notes.lines


class _Video:
    """Times of a video's frames, and its audio tracks on the same clock."""

    def __init__(
        self,
        path: str | Path,
        notes: Notes,
        trim: Trim | None = None,
        *,
        has_lead: bool = False,
        first: Fraction | None = None,
    ) -> None:
        """Read a video.

        Args:
            path: the file.
            notes: where to note what reading it loses.
            trim: the part to read.
            has_lead: whether audio before zero is there only so that later audio can be decoded.
            first: time of the first frame, on which a file is aligned that has moved all times.
        """
        reader = FrameReader(path, trim=trim, notes=notes)
        self.path, self.info = path, probe(path)
        times = [time * self.info.time_base for time, _ in reader]
        moved = times[0] - first if first is not None and _has_moved(path) else Fraction(0)
        self.times = [time - moved for time in times]
        self.end = self.times[-1] + reader.last_duration * self.info.time_base
        self.extent = reader.extent or Extent(end=self.end)
        self.zero = self.info.start + self.extent.skipped + moved
        """Time on the file's clock, in seconds, that is zero for frames and audio."""
        has_lost_start = has_lead or reader.missed > 0 or self.extent.skipped > 0
        self.tracks = list(_tracks(path, self.zero, self.extent, has_lost_start=has_lost_start))


def _has_moved(path: str | Path) -> bool:
    """Return whether a file may have moved all times: Matroska stores none before zero, where audio often begins."""
    with opened(path) as (container, _):
        is_matroska = "matroska" in container.format.name.split(",")
        return is_matroska and any(stream.start_time == 0 for stream in container.streams.audio)


@dataclass(frozen=True, slots=True)
class _Track:
    """One audio stream."""

    index: int
    codec: str
    language: str
    is_default: bool
    packets: list[tuple[Fraction, int]]
    """Time in seconds and checksum of the content."""


def _tracks(path: str | Path, zero: Fraction, extent: Extent, *, has_lost_start: bool) -> Iterator[_Track]:
    last = extent.end if extent.is_cut or extent.is_part else None
    with opened(path) as (container, _):
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        found: dict[int, list[tuple[Fraction, int]]] = {stream.index: [] for stream in streams}
        clocks = {stream.index: AudioClock(stream.time_base, extent.offsets) for stream in streams}
        with contextlib.suppress(av.error.FFmpegError):
            for packet in container.demux(streams) if streams else ():
                if not packet.size or packet.pts is None:
                    continue
                place = clocks[packet.stream_index].place(packet.pts, packet.duration or 0)
                start = place * packet.time_base - zero
                end = start + (packet.duration or 0) * packet.time_base
                if (last is None or start < last) and (not has_lost_start or end > 0):
                    found[packet.stream_index].append((start, zlib.crc32(_payload(packet))))
        streams = [stream for stream in streams if found[stream.index]]
        flagged = [stream.index for stream in streams if stream.disposition & stream.disposition.__class__.default]
        for stream in streams:
            yield _Track(
                index=stream.index,
                codec=stream.codec_context.name,
                language=stream.language or "und",
                is_default=stream.index in (flagged or [streams[0].index]),
                packets=found[stream.index],
            )


def _timing_checks(before: _Video, after: _Video) -> Iterator[VideoCheck]:
    counts = len(before.times), len(after.times)
    yield _check("frames", counts[0] == counts[1], *counts)
    tick = max(before.info.time_base, after.info.time_base)
    errors = [abs(own - other) for own, other in zip(before.times, after.times, strict=False)]
    wrong = sum(error > tick / 2 for error in errors) + abs(counts[0] - counts[1])
    yield _check(
        "timestamps",
        wrong == 0,
        f"ticks of {before.info.time_base} s",
        f"{wrong} differ, by {_ms(max(errors))} at most",
    )
    yield _check("duration", abs(before.end - after.end) < tick, _seconds(before.end), _seconds(after.end))


def _picture_checks(before: VideoInfo, after: VideoInfo) -> Iterator[VideoCheck]:
    sizes = (before.width, before.height), (after.width, after.height)
    passed = all(new in (old, old + old % 2) for old, new in zip(*sizes, strict=True))
    yield _check("size", passed, *(f"{width}x{height}" for width, height in sizes))
    yield _check(
        "aspect", before.pixel_aspect == after.pixel_aspect, *(f"pixels {_ratio(info)}" for info in (before, after))
    )
    yield _check("rotation", after.rotation == 0, *(f"{info.rotation} degrees to turn" for info in (before, after)))


def _colour_check(source: str | Path, output: str | Path) -> VideoCheck:
    tags = [_tags(path) for path in (source, output)]
    passed = tags[1] == (_BT709, _BT709, _BT709, _LIMITED)
    return _check(
        "colour tags", passed, *("matrix {}, transfer {}, primaries {}, range {}".format(*each) for each in tags)
    )


def _tags(path: str | Path) -> tuple[int, int, int, int]:
    with opened(path) as (_, stream):
        codec = stream.codec_context
        return int(codec.colorspace), int(codec.color_trc), int(codec.color_primaries), int(codec.color_range)


def _outside_check(source: str | Path, output: str | Path, mask: str | Path, trim: Trim | None) -> VideoCheck:
    """Compare the pixels that the edit should not have changed."""
    error = count = changed = 0
    pairs = zip(FrameReader(source, trim=trim), FrameReader(output), _masks(mask), strict=False)
    for (_, before), (_, after), inside in pairs:
        height, width = before.shape[:2]
        if inside.shape != (height, width):
            raise VideoError(
                f"the mask {mask} is {inside.shape[1]}x{inside.shape[0]}, and {source} is {width}x{height}"
            )
        outside = ~inside[: after.shape[0], : after.shape[1]]
        shown = after[:height, :width].astype(np.int32)
        squares = (before[: after.shape[0], : after.shape[1]].astype(np.int32) - shown)[outside] ** 2
        error, count = error + int(squares.sum()), count + squares.size
        changed += int((squares.max(axis=1, initial=0) > _VISIBLE**2).sum())
    if not count:
        raise VideoError(f"the mask {mask} leaves no pixel outside of the edit")
    psnr = math.inf if error == 0 else 10 * math.log10(255**2 * count / error)
    fraction = 3 * changed / count
    return _check(
        "outside of the mask",
        psnr >= _OUTSIDE_PSNR,
        f"at least {_OUTSIDE_PSNR} dB",
        f"{psnr:.1f} dB, {100 * fraction:.2f} % of the pixels differ by more than {_VISIBLE} of 255",
    )


def _masks(path: str | Path) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield where an edit may change something, for each frame; that of a still picture without end."""
    masks = (frame.max(axis=2) > _BRIGHT for _, frame in FrameReader(path))
    first = next(masks)
    second = next(masks, None)
    yield first
    if second is None:
        yield from itertools.repeat(first)
    else:
        yield second
        yield from masks


def _audio_checks(before: _Video, after: _Video) -> Iterator[VideoCheck]:
    yield _check(
        "audio tracks",
        [_mark(track) for track in before.tracks] == [_mark(track) for track in after.tracks],
        *(", ".join(map(_mark, video.tracks)) or "none" for video in (before, after)),
    )
    for number, (own, other) in enumerate(zip(before.tracks, after.tracks, strict=False), start=1):
        if own.codec == other.codec:
            yield from _copy_checks(f"audio {number}", before, own, other)
        else:
            yield _sound_check(f"audio {number}", before, after, own, other)


def _copy_checks(name: str, before: _Video, own: _Track, other: _Track) -> Iterator[VideoCheck]:
    """Compare packets that should have been copied, but for damaged ones."""
    errors, missing = _matched(own, other)
    damaged = _count_damaged(before, own) if missing else 0
    extra = len(other.packets) - len(errors)
    counts = f"{len(own.packets)} of {own.codec}, {damaged} damaged", f"{len(errors)} of them, {extra} others"
    yield _check(f"{name} packets", missing <= damaged and not extra, *counts)
    worst = max(errors, default=Fraction(0))
    yield _check(f"{name} sync", worst <= _SYNC, "0 ms", f"{_ms(worst)} at most")


def _matched(own: _Track, other: _Track) -> tuple[list[Fraction], int]:
    """Return by how many seconds each packet that both tracks have is off, and how many the other one lacks."""
    errors: list[Fraction] = []
    place = 0
    for start, content in own.packets:
        if place < len(other.packets) and other.packets[place][1] == content:
            errors.append(abs(other.packets[place][0] - start))
            place += 1
    return errors, len(own.packets) - len(errors)


def _count_damaged(video: _Video, track: _Track) -> int:
    count = 0
    with opened(video.path) as (container, _), contextlib.suppress(av.error.FFmpegError):
        take_channels(container.streams[track.index].codec_context)
        for packet in container.demux(container.streams[track.index]):
            try:
                packet.decode()
            except av.error.FFmpegError:
                count += 1
    return count


def _payload(packet: Any) -> bytes:
    """Return a packet's content, without the header that AAC has in a transport stream and not in MP4."""
    data = bytes(packet)
    has_header = packet.stream.codec_context.name == "aac" and data[:1] == b"\xff" and data[1] & 0xF6 == 0xF0
    return data[7 if data[1] & 1 else 9 :] if has_header else data


def _sound_check(name: str, before: _Video, after: _Video, own: _Track, other: _Track) -> VideoCheck:
    """Compare what is heard of a track that was encoded again."""
    envelopes = [_envelope(video, track) for video, track in ((before, own), (after, other))]
    if before.extent.is_part:
        envelopes = [values[: round(before.end * _ENVELOPE_RATE)] for values in envelopes]
    lag = _lag(*envelopes)
    return _check(f"{name} sync", abs(lag) <= _SYNC, f"0 ms, {own.codec}", f"{_ms(lag)}, {other.codec}")


def _envelope(video: _Video, track: _Track) -> npt.NDArray[np.float32]:
    """Return the loudness of a track, a value for each millisecond, from time zero on."""
    values = np.zeros(round(video.end * _ENVELOPE_RATE) + _ENVELOPE_RATE, np.float32)
    rate = _SAMPLES * _ENVELOPE_RATE
    for start, samples in _heard(video, track, rate):
        places = (round(start * rate) + np.arange(len(samples))) // _SAMPLES
        inside = (places >= 0) & (places < len(values))
        np.add.at(values, places[inside], np.abs(samples[inside]))
    return values


def _heard(video: _Video, track: _Track, rate: int) -> Iterator[tuple[Fraction, npt.NDArray[np.float32]]]:
    """Yield stretches of mono samples with their times in seconds."""
    with opened(video.path) as (container, _):
        resampler: tuple[Any, Any] | None = None
        take_channels(container.streams[track.index].codec_context)
        end = Fraction(0)
        for frame in _decoded(container, container.streams[track.index]):
            start = end if frame.pts is None else frame.pts * frame.time_base - video.zero
            end = start + Fraction(frame.samples, frame.sample_rate)
            kind = frame.format.name, frame.layout.name, frame.sample_rate
            if resampler is None or resampler[0] != kind:
                resampler = kind, av.AudioResampler(format="fltp", layout="mono", rate=rate)
            # With its time, since what is returned began before it: the resampler keeps samples back
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = round(start * frame.sample_rate)
            for part in resampler[1].resample(frame):
                yield part.pts * part.time_base, part.to_ndarray()[0]


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    with contextlib.suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            with contextlib.suppress(av.error.FFmpegError):
                yield from packet.decode()


def _lag(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> Fraction:
    """Return the seconds by which a sound comes later than another, from their envelopes; 0 for silence."""
    length = 2 * max(len(before), len(after))
    spectra = [np.fft.rfft(values - values.mean(), length) for values in (before, after)]
    match = np.fft.irfft(spectra[0].conj() * spectra[1])
    reach = round(_LONGEST_LAG * _ENVELOPE_RATE)
    near = np.concatenate([match[-reach:], match[: reach + 1]])
    return Fraction(int(near.argmax()) - reach, _ENVELOPE_RATE) if near.max() > 0 else Fraction(0)


def _mark(track: _Track) -> str:
    return f"{track.language}{' (default)' if track.is_default else ''}"


def _check(name: str, passed: bool, source: object, output: object) -> VideoCheck:
    return VideoCheck(name=name, passed=bool(passed), source=str(source), output=str(output))


def _ratio(info: VideoInfo) -> str:
    return f"{info.pixel_aspect.numerator}:{info.pixel_aspect.denominator}"


def _seconds(value: Fraction) -> str:
    return f"{float(value):.4f} s"


def _ms(value: Fraction) -> str:
    return f"{1000 * float(value):.2f} ms"
