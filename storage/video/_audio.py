"""Audio: copied from one file into another without decoding.

Each source stream has a lane to its stream of the output. A lane copies packets if the output's container supports the
codec, so that nothing is lost, and otherwise decodes them and encodes AAC. What a container supports is found by
writing: a header, the first packets and a trailer, into memory. A stream that can be neither copied nor encoded is left
out, with a note.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import av
import av.error

from storage.errors import VideoError
from storage.video._audio_lanes import CopyLane, EncodeLane, FormatChangeError, Lane
from storage.video._channels import is_in_order, take_channels
from storage.video._notes import Notes
from storage.video._packets import Packets
from storage.video._source import opened, origin
from storage.video._timing import AudioClock, Extent

__all__ = ["AudioCopy", "copy_audio", "read_audio"]

_TRIED = 16  # packets of a stream that are written to find whether a container supports it
_LEAD = Fraction(1, 10)
"""Seconds of audio before a part of a file, which its first packets may need to be decoded; players skip it."""
_LONGEST_GAP = 10  # seconds without sound, after the pictures; a longer one is a damaged time
_MP4, _MATROSKA = "mp4", "matroska"
_LEAD_IN = "WAVE_LEAD_IN"
"""Tag of a Matroska file of audio: seconds to subtract from all times, since it stores none before zero."""
_Output: TypeAlias = Path | io.BytesIO
_Opener = Callable[[], AbstractContextManager[Any]]
"""What opens the source from its start, as often as it is called."""


class _LaneKind(Protocol):
    def __call__(self, stream: Any, target: Any) -> Lane: ...


def read_audio(path: str | Path, **options: Any) -> bytes | None:
    """Return what `copy_audio` writes, with its options; None where there is no audio."""
    buffer = io.BytesIO()
    return buffer.getvalue() if copy_audio(path, buffer, **options) else None


def copy_audio(
    path: str | Path,
    target: _Output,
    *,
    extent: Extent | None = None,
    notes: Notes | None = None,
) -> bool:
    """Write all audio streams of a video file to an audio file, and return whether there are any.

    The result is an MP4 file, which stores times in samples and keeps the encoder's delay and a trimmed end; or a
    Matroska file if MP4 does not support a codec. A codec that neither supports is encoded as AAC. Times are on the
    clock of the timestamps of `read_frames`. Damaged packets are left out.

    Args:
        path: the file.
        target: where to write; empty or absent if there is no audio.
        extent: `FrameReader.extent` of the file. Where it is given, audio follows restarts of the clock, is cut along
            with the part that is read, ends with the pictures of a file that is cut off, and is left out after a
            damaged time.
        notes: where to note what is lost.

    Raises:
        VideoError: if the file does not exist, it is not a video, or no frame can be decoded.
    """
    notes = Notes() if notes is None else notes
    with opened(path) as (source, stream):
        if not (indices := _indices(source)):
            return False
        packets = Packets(source, stream)
        if (first := next(packets.frames(), None)) is None:
            raise VideoError(f"{path} has no frame that can be decoded")
        missed = packets.undecodable(first)
        start = origin(source, first, missed)
        span = partial(_Span, start, extent, has_lost_start=missed > 0)
        lead_in = _lead_in(source, start)

    @contextlib.contextmanager
    def reopened() -> Iterator[Any]:
        with opened(path) as (source, _):
            yield source

    if any(_fits(reopened, index, _MATROSKA) and not _fits(reopened, index, _MP4) for index in indices):
        return _stored(reopened, target, partial(span, lead_in=lead_in), _MATROSKA, notes)
    return _stored(reopened, target, span, _MP4, notes)


def _stored(
    reopened: _Opener, output: Path | io.BytesIO, new_span: Callable[[], _Span], kind: str, notes: Notes
) -> bool:
    """Write all streams into one file; if that fails at some packet, encode all; then leave them out."""
    options = {} if kind == _MP4 else {"fflags": "+bitexact"}  # else Matroska has a random number in its header
    for encode in (False, True):
        written, span = 0, new_span()
        try:
            with reopened() as source, av.open(_emptied(output), "w", format=kind, options=options) as target:
                if span.lead_in:
                    target.metadata[_LEAD_IN] = str(span.lead_in)
                lanes = _lanes(reopened, source, target, notes, encode=encode)
                for packet in _packets(source, lanes.streams, span.offsets):
                    if span.place(packet):
                        lanes.write(packet)
                        written += 1
                lanes.finish()
        except (av.error.FFmpegError, FormatChangeError) as error:
            if isinstance(error, OSError):  # the disk, not the audio
                raise
            continue
        if span.cut_at is not None:
            notes.audio_cut(span.cut_at)
        return written > 0
    notes.audio_left_out("a damaged stream")
    return False


def _lead_in(source: Any, start: Fraction) -> int:
    """Return whole seconds by which no audio comes before zero; a header does not count an encoder's delay."""
    firsts = [stream.start_time * stream.time_base for stream in source.streams.audio if stream.start_time is not None]
    return 1 + max(0, math.ceil(start - min(firsts, default=start)))


def _earlier(packets: Iterator[Any], seconds: int) -> Iterator[Any]:
    for packet in packets:
        packet.pts -= round(seconds / packet.time_base)
        yield packet


def _emptied(output: _Output) -> str | io.BytesIO:
    if isinstance(output, Path):
        return str(output)
    output.seek(0)
    output.truncate()
    return output


class _Span:
    """The part of a file's audio that is kept, and its place on the clock of the frames."""

    def __init__(self, start: Fraction, extent: Extent | None, *, has_lost_start: bool, lead_in: int = 0) -> None:
        skipped = extent.skipped if extent else Fraction(0)
        self.lead_in = lead_in
        """Seconds that are added to all times of the output."""
        self.offsets = extent.offsets if extent else ()
        self._start, self._extent = start + skipped, extent
        self._lead = _LEAD if skipped else Fraction(0)
        self._has_lost_start = has_lost_start or skipped > 0
        self._ends: dict[int, Fraction] = defaultdict(Fraction)
        self.cut_at: Fraction | None = None
        """Seconds after which packets were left out."""

    def place(self, packet: Any) -> bool:
        """Move a packet to the clock of the frames, and return whether it is kept.

        Where the start of the video was left out, so is the audio that ends before zero.
        """
        packet.pts -= round(self._start / packet.time_base)
        start, duration = packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base
        if self._is_after(start, packet.stream_index):
            return False
        self._ends[packet.stream_index] = start + duration
        packet.pts += round(self.lead_in / packet.time_base)
        return bool(not self._has_lost_start or start + duration > -self._lead)

    def _is_after(self, start: Fraction, stream: int) -> bool:
        """Return whether a packet comes after the pictures: of a cut file, or at a time that nothing leads to."""
        if self._extent is None or start < self._extent.end:
            return False
        if self._extent.is_part:
            return True
        if self._extent.is_cut or start - max(self._ends[stream], self._extent.end) > _LONGEST_GAP:
            self.cut_at = self._extent.end
            return True
        return False


class AudioCopy:
    """Copy of audio into a container that is being written, interleaved with the video.

    A player reads a file from front to back, so the packets of both have to be near each other.
    """

    def __init__(self, audio: bytes | Path, target: Any, notes: Notes) -> None:
        """Add the output streams, which must happen before the first packet is written.

        Args:
            audio: what `copy_audio` wrote, or where.
            target: the container.
            notes: where to note what is lost.

        Raises:
            VideoError: if the audio cannot be read.
        """

        def reopened() -> Any:
            return av.open(str(audio) if isinstance(audio, Path) else io.BytesIO(audio))

        try:
            self._source = reopened()
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(f"the audio for the frames cannot be read ({error})") from error
        self._lanes = _lanes(reopened, self._source, target, notes)
        lead_in = int(self._source.metadata.get(_LEAD_IN, "0"))
        self._packets = _earlier(_packets(self._source, self._lanes.streams), lead_in)
        self._next = next(self._packets, None)

    def write_until(self, seconds: Fraction | None) -> None:
        """Write the packets that start before a time, in seconds; for None all remaining ones."""
        while self._next is not None and (seconds is None or self._next.pts * self._next.time_base < seconds):
            self._lanes.write(self._next)
            self._next = next(self._packets, None)
        if seconds is None:
            self._lanes.finish()
            self._source.close()


class _Lanes:
    """Lanes of all streams into one container."""

    def __init__(self, lanes: Mapping[int, Lane], target: Any, notes: Notes) -> None:
        self._lanes, self._target, self._notes = lanes, target, notes
        self._damaged = 0

    @property
    def streams(self) -> list[int]:
        """Indices of the source's streams."""
        return list(self._lanes)

    def write(self, packet: Any) -> None:
        """Write what becomes of a packet; a damaged one is left out."""
        self._mux(self._made(self._lanes[packet.stream_index], packet))

    def finish(self) -> None:
        """Write what encoders have kept."""
        for lane in self._lanes.values():
            self._mux(self._made(lane, None))
        damaged = self._damaged + sum(lane.damaged for lane in self._lanes.values())
        if damaged:
            self._notes.audio_damaged(damaged)

    def _made(self, lane: Lane, packet: Any) -> list[Any]:
        try:
            return lane.packets(packet)
        except (av.error.FFmpegError, ValueError):
            self._damaged += 1
            return []

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            try:
                self._target.mux(packet)
            except av.error.FFmpegError as error:
                if isinstance(error, OSError):  # the disk, not the packet
                    raise
                self._damaged += 1


def _lanes(reopened: _Opener, source: Any, target: Any, notes: Notes, *, encode: bool = False) -> _Lanes:
    """Add a stream to a container for each one of the source that can be copied into it or encoded for it."""
    lanes: dict[int, Lane] = {}
    for index in _indices(source):
        stream, kind = source.streams[index], target.format.name
        codec = stream.codec_context.name
        if not stream.codec_context.sample_rate and not _is_decodable(reopened, index):  # declared, and never begun
            notes.audio_left_out(codec)
        elif not encode and _fits(reopened, index, kind):
            lanes[index] = CopyLane(stream, target)
        elif _can_write(EncodeLane, reopened, index, kind):
            lane = lanes[index] = EncodeLane(stream, target)
            notes.audio_encoded(codec, lane.name)
            if not lane.mix.has_all:
                notes.audio_mixed(lane.channels, lane.mix.layout)
        else:
            notes.audio_left_out(codec)
    return _Lanes(lanes, target, notes)


def _fits(reopened: _Opener, index: int, container: str) -> bool:
    """Return whether a container, by ffmpeg's name of its format, supports a stream's codec.

    PCM in MP4 is written and read by new versions of FFmpeg only: others play noise. TTA has a header that Matroska
    does not store. PCM with channels that are not in FFmpeg's order would be read in that order.
    """
    with reopened() as source:
        codec = source.streams[index].codec_context
        is_pcm = "pcm_" in codec.name
        if not codec.sample_rate or (is_pcm and not is_in_order(take_channels(codec))):
            return False
        refused = is_pcm if container == _MP4 else codec.name == "tta"
    return not refused and _can_write(CopyLane, reopened, index, container)


def _can_write(kind: _LaneKind, reopened: _Opener, index: int, container: str) -> bool:
    """Write a header, the first packets of a stream and a trailer into memory, and return whether that works."""
    try:
        with reopened() as source, av.open(io.BytesIO(), "w", format=container) as trial:
            lane = kind(source.streams[index], trial)
            for packet in [*islice(_packets(source, [index]), _TRIED), None]:
                for made in lane.packets(packet):
                    with contextlib.suppress(av.error.InvalidDataError):  # damage is no matter of the container
                        trial.mux(made)
    except (av.error.FFmpegError, FormatChangeError, ValueError):
        return False
    return True


def _is_decodable(reopened: _Opener, index: int) -> bool:
    """Return whether a stream has a packet that can be decoded."""
    with reopened() as source:
        take_channels(source.streams[index].codec_context)
        for packet in _packets(source, [index]):
            with contextlib.suppress(av.error.FFmpegError):
                if packet.decode():
                    return True
    return False


def _indices(source: Any) -> list[int]:
    return [stream.index for stream in source.streams.audio if stream.codec_context is not None]


def _packets(container: Any, indices: Sequence[int], offsets: Sequence[Fraction] = ()) -> Iterator[Any]:
    """Yield the packets of these streams that have data and a time, in the file's order, until it is truncated.

    Times that do not increase are repaired: no container takes them. Those after a restart are moved by `offsets`.
    """
    if not indices:  # PyAV takes an empty list for all streams
        return
    clocks = {index: AudioClock(container.streams[index].time_base, offsets) for index in indices}
    with contextlib.suppress(av.error.FFmpegError):
        for packet in container.demux([container.streams[index] for index in indices]):
            if packet.size and packet.pts is not None:
                packet.pts = clocks[packet.stream_index].place(packet.pts, packet.duration or 0)
                yield packet
