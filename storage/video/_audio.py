"""Audio: copied from one file into another without decoding.

Each source stream has a lane to its stream of the output. A lane copies packets if the output's container supports the
codec, so that nothing is lost, and otherwise decodes them and encodes AAC.
"""

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
    """Return all audio streams of a video file as an audio file; None where there are none.

    The result is an MP4 file, which stores times in samples and keeps the encoder's delay and a trimmed end; or a
    Matroska file if MP4 does not support a codec. A codec that neither supports is encoded as AAC. Times are on the
    clock of the timestamps of `read_frames`.

    Raises:
        VideoError: if there is no such file or it is not a video.
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
    """Copy of audio into a container that is being written, interleaved with the video.

    A player reads a file from front to back, so the packets of both have to be near each other.
    """

    def __init__(self, data: bytes, target: Any) -> None:
        """Add the output streams, which must happen before the first packet is written.

        Raises:
            VideoError: if the audio cannot be read.
        """
        try:
            self._source = av.open(io.BytesIO(data))
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(f"the audio for the frames cannot be read ({error})") from error
        self._target = target
        self._lanes = {
            stream.index: _lane(stream, target)
            for stream in self._source.streams.audio
            if stream.codec_context is not None
        }
        self._packets = _packets(self._source, list(self._lanes))
        self._next = next(self._packets, None)

    def write_until(self, seconds: Fraction | None) -> None:
        """Write the packets that start before a time, in seconds; for None all remaining ones."""
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
    """Return whether a container, by ffmpeg's name of its format, supports a stream's codec."""
    with av.open(io.BytesIO(), "w", format=container) as trial:
        try:
            trial.add_stream_from_template(stream)
        except ValueError:
            return False
    return True


def _packets(container: Any, indices: list[int]) -> Iterator[Any]:
    """Yield the packets of these streams that have data and a time, in the file's order, until it is truncated."""
    if not indices:  # PyAV takes an empty list for all streams
        return
    with contextlib.suppress(av.error.FFmpegError):
        for packet in container.demux([container.streams[index] for index in indices]):
            if packet.size and packet.pts is not None:
                yield packet


class _CopyLane:
    """Copy of one stream's packets, with times on the clock of its samples.

    Matroska stores times in milliseconds, which are not multiples of a packet's duration (1024 samples at 48 kHz are
    21.33 ms). Copied as they are, packets would overlap or leave gaps of a fraction of a millisecond.
    """

    def __init__(self, stream: Any, target: Any) -> None:
        self._output = target.add_stream_from_template(stream)
        self._output.metadata.update(_described(stream))
        self._samples = stream.codec_context.frame_size or 0
        self._tick = Fraction(1, stream.codec_context.sample_rate)
        self._expected: int | None = None

    def packets(self, packet: Any) -> list[Any]:
        if packet is None:
            return []
        packet.dts = packet.pts  # audio packets are decoded in the order in which they are played
        if self._samples and packet.time_base != self._tick:
            self._restore_clock(packet)
        packet.stream = self._output
        return [packet]

    def _restore_clock(self, packet: Any) -> None:
        """Start a packet at the end of the previous one, if its time differs by no more than rounding explains."""
        seconds = packet.pts * packet.time_base
        samples = round(seconds / self._tick)
        if self._expected is not None and abs(self._expected * self._tick - seconds) <= packet.time_base:
            samples = self._expected
        packet.time_base = self._tick
        packet.pts = packet.dts = samples
        packet.duration = self._samples
        self._expected = samples + self._samples


class _EncodeLane:
    """Encoding of one stream as AAC; damaged packets are left out, channel layouts unknown to AAC become stereo."""

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
    """Return the AAC layout for a source's; by the number of channels if it has no name, as in much raw audio."""
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
