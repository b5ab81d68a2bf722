"""Audio: taken out of one file undecoded, put into another."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from storage.errors import VideoError
from storage.video._decode import opened, origin

__all__ = ["AudioCopy", "read_audio"]

_AAC_RATES = frozenset({96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350})
_AAC_LAYOUTS = {"mono": 1, "stereo": 2, "3.0": 3, "4.0": 4, "5.0": 5, "5.1": 6, "7.1": 8}


def read_audio(path: str | Path) -> bytes | None:
    """All audio streams of a video file, undecoded, as a file of its own; None where there are none.

    An MP4 file, which keeps every sample's time, an encoder's warm-up and a cut at the end; or a Matroska file where
    MP4 cannot hold a codec. A codec that neither can hold becomes AAC. Times are on the same clock as `read_frames`'s
    timestamps.

    Raises:
        VideoError: if it is no video.
    """
    with opened(path) as (source, _):
        streams = [stream for stream in source.streams.audio if stream.codec_context is not None]
        if not streams:
            return None
        only_matroska = any(_fits(stream, "matroska") and not _fits(stream, "mp4") for stream in streams)
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="matroska" if only_matroska else "mp4") as target:
            lanes = {stream.index: _lane(stream, target) for stream in streams}
            start = origin(source)
            for packet in _packets(source, list(lanes)):
                packet.pts -= round(start / packet.time_base)
                target.mux(lanes[packet.stream_index].packets(packet))
            for lane in lanes.values():
                target.mux(lane.packets(None))
        return buffer.getvalue()


class AudioCopy:
    """Audio on its way into a container that is being written, a stretch at a time, beside the video."""

    def __init__(self, data: bytes, target: Any) -> None:
        """Add the output streams; nothing is written yet."""
        try:
            self._source = av.open(io.BytesIO(data))
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(f"the audio kept beside the frames cannot be read ({error})") from error
        self._target = target
        self._lanes = {
            stream.index: _lane(stream, target)
            for stream in self._source.streams.audio
            if stream.codec_context is not None
        }
        self._packets = _packets(self._source, list(self._lanes))
        self._next = next(self._packets, None)

    def write_until(self, seconds: Fraction | None) -> None:
        """Write what starts before a time; all the rest for None."""
        while self._next is not None and (seconds is None or self._next.pts * self._next.time_base < seconds):
            self._target.mux(self._lanes[self._next.stream_index].packets(self._next))
            self._next = next(self._packets, None)
        if seconds is None:
            for lane in self._lanes.values():
                self._target.mux(lane.packets(None))
            self._source.close()


def _lane(stream: Any, target: Any) -> _CopyLane | _EncodeLane:
    lane = _CopyLane if _fits(stream, target.format.name) else _EncodeLane
    return lane(stream, target)


def _fits(stream: Any, container: str) -> bool:
    """Whether a container, by ffmpeg's name for its format, can hold a stream as it is."""
    with av.open(io.BytesIO(), "w", format=container) as trial:
        try:
            trial.add_stream_from_template(stream)
        except ValueError:
            return False
    return True


def _packets(container: Any, indices: list[int]) -> Iterator[Any]:
    """Packets of the given streams that carry data and a time, in the file's order, as far as it can be read."""
    if not indices:  # which would mean all streams
        return
    with contextlib.suppress(av.error.FFmpegError):
        for packet in container.demux([container.streams[index] for index in indices]):
            if packet.size and packet.pts is not None:
                yield packet


class _CopyLane:
    """Packets copied. Where the source's clock is coarser than its samples, times go back to whole samples."""

    def __init__(self, stream: Any, target: Any) -> None:
        self._output = target.add_stream_from_template(stream)
        self._output.metadata.update(_described(stream))
        self._samples = stream.codec_context.frame_size or 0
        self._tick = Fraction(1, stream.codec_context.sample_rate)
        self._expected: int | None = None

    def packets(self, packet: Any) -> list[Any]:
        if packet is None:
            return []
        packet.dts = packet.pts  # audio is stored in the order in which it is heard
        if self._samples and packet.time_base != self._tick:
            self._restore_clock(packet)
        packet.stream = self._output
        return [packet]

    def _restore_clock(self, packet: Any) -> None:
        """Let a packet begin where the one before it ended, if its rounded time may mean that."""
        seconds = packet.pts * packet.time_base
        samples = round(seconds / self._tick)
        if self._expected is not None and abs(self._expected * self._tick - seconds) <= packet.time_base:
            samples = self._expected
        packet.time_base = self._tick
        packet.pts = packet.dts = samples
        packet.duration = self._samples
        self._expected = samples + self._samples


class _EncodeLane:
    """Packets decoded and encoded again as AAC. Damaged ones are left out, unusual layouts become stereo."""

    def __init__(self, stream: Any, target: Any) -> None:
        codec = stream.codec_context
        rate = codec.sample_rate if codec.sample_rate in _AAC_RATES else 48000
        layout = _layout(codec.layout)
        self._output = target.add_stream("aac", rate=rate, layout=layout)
        self._output.metadata.update(_described(stream))
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)

    def packets(self, packet: Any) -> list[Any]:
        if packet is None:
            frames = [*self._resampler.resample(None), None]
        else:
            frames = [part for frame in _decoded(packet) for part in self._resampler.resample(frame)]
        return [encoded for frame in frames for encoded in self._output.encode(frame)]


def _layout(layout: Any) -> str:
    """The AAC layout of a source's; raw audio often says no more than how many channels it has."""
    if layout.name in _AAC_LAYOUTS:
        return str(layout.name)
    unnamed = layout.name.endswith("channels")
    return {count: name for name, count in _AAC_LAYOUTS.items() if unnamed}.get(layout.nb_channels, "stereo")


def _decoded(packet: Any) -> list[Any]:
    try:
        return list(packet.decode())
    except av.error.FFmpegError:
        return []


def _described(stream: Any) -> dict[str, str]:
    return {key: value for key, value in stream.metadata.items() if key in ("language", "title", "handler_name")}
