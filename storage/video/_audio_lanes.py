"""Lanes: what becomes of the packets of one audio stream in another container."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Protocol

import av
import av.error
from av.filter import Graph

from storage.video._channels import Mix, take_channels

__all__ = ["CopyLane", "EncodeLane", "FormatChangeError", "Lane"]

_OPUS_RATES = frozenset({48000, 24000, 16000, 12000, 8000})
_AAC_RATES = frozenset({96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350})
_AAC_LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1")
_OPUS_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
_AAC_FRAME = 1024  # samples
_OPUS_FRAME = Fraction(20, 1000)  # seconds
_BIT_RATE = 128_000  # per channel
_SYNC = 0xFF  # the first byte of a header of MPEG audio
_COMPARED = 3  # headers: the first one, and the last two


class FormatChangeError(Exception):
    """A stream changes its sample rate, which the header of a container states once."""


class Lane(Protocol):
    """A lane."""

    damaged: int
    """Packets that could not be decoded."""

    def packets(self, packet: Any) -> list[Any]:
        """Return the output's packets for one of the source; for None those that are still to come."""
        ...


class CopyLane:
    """Copy of one stream's packets, with times on the clock of its samples.

    Matroska stores times in milliseconds, which are not multiples of a packet's duration (1024 samples at 48 kHz are
    21.33 ms). Copied as they are, packets would overlap or leave gaps of a fraction of a millisecond.
    """

    damaged = 0

    def __init__(self, stream: Any, target: Any) -> None:
        """Add a stream like another to a container."""
        self._output = _described(target.add_stream_from_template(stream), stream)
        self._codec = stream.codec_context
        take_channels(self._codec)
        self._samples = self._codec.frame_size or 0
        self._tick = Fraction(1, self._codec.sample_rate)
        self._expected: int | None = None
        self._rates: list[int] = []

    def packets(self, packet: Any) -> list[Any]:
        """See `Lane`.

        Raises:
            FormatChangeError: if the stream changes.
        """
        if packet is None:
            return []
        self._check_rate(packet)
        packet.dts = packet.pts  # audio packets are decoded in the order in which they are played
        samples = self._samples or (0 if packet.duration else self._count(packet))
        if samples and (packet.time_base != self._tick or not packet.duration):
            self._restore_clock(packet, samples)
        packet.stream = self._output
        return [packet]

    def _check_rate(self, packet: Any) -> None:
        """Compare a packet's header with the first one's; two in a row differ, since one may be damage."""
        found = _coded_rate(self._codec.name, bytes(memoryview(packet)[:4]))
        if found is not None:
            self._rates = [*self._rates[:1], *self._rates[1:][-1:], found]
        has_changed = len(self._rates) == _COMPARED and self._rates[0] not in self._rates[1:]
        if has_changed or packet.has_sidedata("new_extradata"):
            raise FormatChangeError

    def _count(self, packet: Any) -> int:
        """Return the samples of a packet without a duration: in MP4, the last one would not be played."""
        with contextlib.suppress(av.error.FFmpegError):
            return sum(frame.samples for frame in self._codec.decode(packet))
        return 0

    def _restore_clock(self, packet: Any, samples: int) -> None:
        """Start a packet at the end of the previous one, if its time differs by no more than rounding explains."""
        seconds = packet.pts * packet.time_base
        place = round(seconds / self._tick)
        if self._expected is not None and abs(self._expected * self._tick - seconds) <= packet.time_base:
            place = self._expected
        packet.time_base = self._tick
        packet.pts = packet.dts = place
        packet.duration = samples
        self._expected = place + samples


class EncodeLane:
    """Encoding of one stream as AAC, or as Opus in WebM, from time zero on; damage and gaps become silence."""

    def __init__(self, stream: Any, target: Any) -> None:
        """Add a stream of AAC or Opus to a container."""
        self._codec, self._time_base = stream.codec_context, stream.time_base
        is_opus = target.format.name == "webm"
        self.name = "Opus" if is_opus else "AAC"
        self._rate = self._codec.sample_rate
        if self._rate not in (_OPUS_RATES if is_opus else _AAC_RATES):
            self._rate = 48000
        self._frame = int(_OPUS_FRAME * self._rate) if is_opus else _AAC_FRAME
        names = take_channels(self._codec)
        self.channels = self._codec.layout.nb_channels
        self.mix = Mix.of(names, self.channels, _OPUS_LAYOUTS if is_opus else _AAC_LAYOUTS)
        self._layout = self.mix.layout
        encoder = "libopus" if is_opus else "aac"
        self._output = _described(target.add_stream(encoder, rate=self._rate, layout=self._layout), stream)
        self._output.bit_rate = _BIT_RATE * self._output.codec_context.layout.nb_channels
        self._resampler: tuple[Any, av.AudioResampler] | None = None
        self._pan: tuple[tuple[str, int], Graph] | None = None
        self._graph = self._filters()
        self.damaged = 0

    def packets(self, packet: Any) -> list[Any]:
        """See `Lane`."""
        return [encoded for frame in self._frames(packet) for encoded in self._output.encode(frame)]

    def _frames(self, packet: Any) -> Iterator[Any]:
        for frame in self._decoded(packet):
            for part in self._resampled(self._mixed(frame)):
                yield from self._filtered(part)
        if packet is None:
            for part in self._resampled(None):
                yield from self._filtered(part)
            yield from self._filtered(None)
            yield None

    def _decoded(self, packet: Any) -> list[Any]:
        """Decode a packet that may have been moved in time; None for what the decoder has kept."""
        try:
            frames = list(self._codec.decode(packet))
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self.damaged += packet is not None
            return []
        for frame in frames:
            frame.time_base = frame.time_base or self._time_base  # those that a decoder has kept have none
        return frames

    def _mixed(self, frame: Any) -> Any:
        """Put the channels in order, or mix them, where a conversion of layouts would not do it right."""
        if not self.mix.pan or frame.layout.nb_channels != self.channels:
            return frame
        kind = frame.format.name, frame.sample_rate
        if self._pan is None or self._pan[0] != kind:
            self._pan = kind, _pan_filter(frame, self.mix.pan)
        self._pan[1].push(frame)
        return self._pan[1].pull()

    def _resampled(self, frame: Any) -> list[Any]:
        """Convert a decoded frame to the encoder's rate and layout, also where its own change in mid-stream."""
        kind = None if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate)
        parts = []
        if self._resampler is not None and self._resampler[0] != kind:
            parts, self._resampler = list(self._resampler[1].resample(None)), None
        if frame is None:
            return parts
        if self._resampler is None:
            self._resampler = kind, av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)
        return [*parts, *self._resampler[1].resample(frame)]

    def _filtered(self, frame: Any) -> Iterator[Any]:
        """Fill gaps, cut off what is before time zero, and yield frames of the encoder's length."""
        if frame is not None and frame.pts is not None:  # a frame that needed no conversion keeps its stream's clock
            frame.pts = round(frame.pts * frame.time_base * self._rate)
            frame.time_base = Fraction(1, self._rate)
        self._graph.push(frame)
        with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                yield self._graph.pull()

    def _filters(self) -> Graph:
        graph = Graph()
        source = graph.add_abuffer(
            sample_rate=self._rate, format="fltp", layout=self._layout, time_base=Fraction(1, self._rate)
        )
        filters = (("aresample", "async=1:first_pts=0"), ("asetnsamples", f"n={self._frame}:p=0"))
        graph.link_nodes(source, *(graph.add(*each) for each in filters), graph.add("abuffersink")).configure()
        return graph


def _coded_rate(codec: str, header: bytes) -> int | None:
    """Return the bits of a packet's header for the sample rate; None for a codec that has none there."""
    if len(header) < 4 or header[0] != _SYNC:
        return None
    if codec == "aac" and header[1] & 0xF6 == 0xF0:  # ADTS, as in a transport stream
        return header[2] & 0x3C
    if codec in ("mp2", "mp3") and header[1] & 0xE0 == 0xE0:
        return header[1] & 0x18 | (header[2] & 0x0C) << 8
    return None


def _pan_filter(frame: Any, settings: str) -> Graph:
    graph = Graph()
    source = graph.add(
        "abuffer",
        sample_rate=str(frame.sample_rate),
        sample_fmt=frame.format.name,
        channel_layout=frame.layout.name,
        time_base=str(frame.time_base),
    )
    graph.link_nodes(source, graph.add("pan", settings), graph.add("abuffersink")).configure()
    return graph


def _described(output: Any, stream: Any) -> Any:
    """Copy language, title and whether a stream is the default one."""
    output.metadata.update(
        {key: value for key, value in stream.metadata.items() if key in ("language", "title", "handler_name")}
    )
    output.disposition = stream.disposition
    return output
