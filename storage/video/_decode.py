"""Decoding of a video file to upright RGB frames with their timestamps, one at a time."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import av.error
import numpy as np
import numpy.typing as npt

from storage.errors import VideoError
from storage.limits import current_limits
from storage.video._colour import ToRgb, is_untagged, untagged_matrix
from storage.video._crop import Crop, crop_of
from storage.video._deinterlace import DEINTERLACING, deinterlaced
from storage.video._frame_notes import FrameNotes
from storage.video._notes import Notes
from storage.video._orientation import Orientation
from storage.video._packets import Packets
from storage.video._side_data import side_data
from storage.video._source import count_pages, is_cut_gif, opened, origin, other_streams
from storage.video._timing import Extent, Timeline, final_duration
from storage.video._tone_mapping import ToneMap, ToneMaps
from storage.video._trim import Trim

__all__ = ["FrameReader", "VideoInfo", "probe", "read_frames"]

Frame: TypeAlias = npt.NDArray[np.uint8]

_DEFAULT_RATE = Fraction(25)
_OLD_HD_LINES = 720


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
    start: Fraction
    """Time on the file's clock, in seconds, that becomes zero for frames and audio."""
    hdr: str
    """The kind of HDR; empty for SDR."""
    conversions: tuple[str, ...]
    """What `read_frames` converts in addition to matrix and range; none for an ordinary SDR video."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """How the frames of a video become pictures, from its first decoded frame."""

    size: tuple[int, int]
    """Height and width as stored."""
    crop: Crop
    turn: Orientation
    tone_map: ToneMap | None
    side_data: dict[str, bytes]
    """Of the first frame."""
    missed: Fraction
    """Seconds at the start that cannot be decoded."""
    start: Fraction
    """Time on the file's clock, in seconds, that becomes zero."""

    @classmethod
    def of(cls, container: Any, stream: Any, packets: Packets, first: Any) -> _Picture:
        size = first.height, first.width
        found = side_data(first)
        return cls(
            size=size,
            crop=crop_of(container, stream, size),
            turn=Orientation.of(found),
            tone_map=ToneMap.of(first, found),
            side_data=found,
            missed=(missed := packets.undecodable(first)),
            start=origin(container, first, missed),
        )

    @property
    def is_cropped(self) -> bool:
        return self.crop != (slice(0, self.size[0]), slice(0, self.size[1]))

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width, cropped and upright."""
        rows, columns = self.crop
        return self.turn.size((rows.stop - rows.start, columns.stop - columns.start))


def probe(path: str | Path) -> VideoInfo:
    """Return the properties of a video file, from its header and its first frame.

    Raises:
        VideoError: if the file does not exist, it is not a video, no frame can be decoded, or pictures are too large.
    """
    with opened(path) as (container, stream):
        packets = Packets(container, stream)
        first = next(packets.frames(), None)
        if first is None:
            raise VideoError(f"{path} has no frame that can be decoded")
        picture = _Picture.of(container, stream, packets, first)
        height, width = picture.shown
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
            rotation=picture.turn.degrees,
            pixel_aspect=1 / aspect if picture.turn.transposed else aspect,
            has_audio=any(audio.codec_context is not None for audio in container.streams.audio),
            start=picture.start,
            hdr=picture.tone_map.name if picture.tone_map and picture.tone_map.is_hdr else "",
            conversions=tuple(_conversions(picture, first)),
        )


def read_frames(path: str | Path, *, deinterlace: bool = True) -> Iterator[tuple[int, Frame]]:
    """Yield timestamps and upright frames, one pair at a time: see `FrameReader`."""
    yield from FrameReader(path, deinterlace=deinterlace)


class FrameReader:
    """Reader of a video's timestamps and upright frames, one pair at a time.

    Timestamps are the file's own minus its start, since the clock of a recording (as in a transport stream) may start
    anywhere; they are repaired where they are missing or do not increase. Damaged frames are left out, and so is a
    start that cannot be decoded.
    """

    def __init__(
        self, path: str | Path, *, deinterlace: bool = True, trim: Trim | None = None, notes: Notes | None = None
    ) -> None:
        """Prepare to read; nothing is opened before the iteration.

        Args:
            path: the file.
            deinterlace: whether frames of two fields become pictures of one moment.
            trim: the part to read, of which the first frame is at zero; all by default. What is before it is decoded as
                well, so that times are the same, and what is after it is not read.
            notes: where to note what the frames lose.
        """
        self._path, self._deinterlace, self._trim = path, deinterlace, trim or Trim()
        self._notes = Notes() if notes is None else notes
        self.missed = Fraction(0)
        """Seconds at the start of the file that cannot be decoded, after the iteration began."""
        self.last_duration = 0
        """Duration of the last frame in ticks, after the iteration."""
        self.extent: Extent | None = None
        """After the iteration, what `copy_audio` needs to know."""

    @property
    def cut_at(self) -> Fraction | None:
        """Seconds after which the file has no pictures though it should; None for a whole file."""
        return self.extent.end if self.extent is not None and self.extent.is_cut else None

    def __iter__(self) -> Iterator[tuple[int, Frame]]:
        """Yield pairs.

        Yields:
            The timestamp, in ticks of `VideoInfo.time_base`, strictly increasing, and the RGB frame, uint8 (height,
            width, 3); all frames have the first one's size.

        Raises:
            VideoError: if the file does not exist, it is not a video, or no frame can be decoded.
        """
        with opened(self._path) as (container, stream):
            stream.thread_type = "AUTO"
            packets = Packets(container, stream)
            decoded = packets.frames()
            first = next(decoded, None)
            if first is None:
                raise VideoError(f"{self._path} has no frame that can be decoded")
            picture = _Picture.of(container, stream, packets, first)
            self.missed = picture.missed
            self._note_start(container, stream, picture)
            rate = Fraction(stream.average_rate or stream.guessed_rate or _DEFAULT_RATE)
            timeline, times = Timeline(stream.time_base, rate), _Times(self._trim, stream.time_base)
            start = round(picture.start / stream.time_base)
            tone_maps = ToneMaps(picture.tone_map)
            to_rgb, to_shown = ToRgb(picture.size, tone_maps), ToRgb(picture.shown)
            watch = FrameNotes(self._notes, stream.codec_context, tone_maps, deinterlaced=self._deinterlace)
            turns = _Turns(first, picture.turn, self._notes, is_mjpeg=stream.codec_context.name == "mjpeg")
            for frame in self._fields(watch.passed(itertools.chain([first], decoded), picture.size)):
                pts = frame.pts if frame.pts is not None else frame.dts
                own = 0 if container.format.name == "avi" else frame.duration  # AVI says one tick for any frame
                if times.add(timeline.place(None if pts is None else pts - start), own):
                    times.check(str(self._path))
                    image = turns.of(frame).apply(to_rgb(frame)[picture.crop])
                    yield times.read[-1] - times.zero, to_shown.fitted(image)
                elif times.ended_at is not None:
                    break
            self._finish(times, timeline, packets, rate)

    def _finish(self, times: _Times, timeline: Timeline, packets: Packets, rate: Fraction) -> None:
        """Compute what is known after the last frame."""
        if not times.read:
            found = f"{len(times.all)} frame{'s' if len(times.all) > 1 else ''}"
            raise VideoError(f"{self._path} has no frame in the part that is to be edited: it has {found}")
        base, is_cut = times.time_base, False
        self.last_duration = times.last_duration(rate)
        if timeline.repaired:
            self._notes.times_repaired(timeline.repaired)
        if times.ended_at is None:
            missing, is_cut = packets.missing(times.all, self.last_duration)
            self._note_end(packets, missing, len(times.all) + missing)
        stop = times.read[-1] + self.last_duration
        self.extent = Extent(
            end=(stop - times.zero) * base,
            skipped=times.zero * base,
            is_cut=is_cut,
            is_part=times.ended_at is not None,
            offsets=tuple(offset * base for offset in timeline.offsets),
        )
        if not self._trim.is_whole:
            self._notes.trimmed(times.read[0] * base, stop * base, len(times.read))

    def _fields(self, frames: Iterable[Any]) -> Iterable[Any]:
        return deinterlaced(frames) if self._deinterlace else frames

    def _note_start(self, container: Any, stream: Any, picture: _Picture) -> None:
        self._notes.streams_left_out(other_streams(container, stream) | {"page": count_pages(self._path, container)})
        self._notes.marks_left_out(picture.side_data)
        self._notes.profile_left_out(picture.side_data.get("ICC_PROFILE", b""))
        if picture.missed:
            self._notes.start_left_out(picture.missed)
        if is_cut_gif(self._path, container):
            self._notes.end_unreadable()
        if Orientation.is_rough(picture.side_data):
            self._notes.turned_roughly()
        if stream.metadata.get("alpha_mode") == "1":  # WebM stores it apart from the colours, and it is not decoded
            self._notes.transparency_left_out()

    def _note_end(self, packets: Packets, missing: int, total: int) -> None:
        if missing:
            self._notes.frames_missing(missing, total)
        elif packets.is_unreadable:
            self._notes.end_unreadable()
        if packets.damaged_frames:
            self._notes.frames_damaged(packets.damaged_frames)


class _Turns:
    """Orientations of the frames of a video, which may change: each picture of MJPEG has its own.

    In other codecs a frame that does not state one, as most where it is in the stream, has that of the frame before.
    """

    def __init__(self, first: Any, turn: Orientation, notes: Notes, *, is_mjpeg: bool) -> None:
        self._rotation, self._turn, self._notes = first.rotation, turn, notes
        self._index, self._changed, self._is_mjpeg = 0, False, is_mjpeg

    def of(self, frame: Any) -> Orientation:
        if frame.rotation != self._rotation and (frame.rotation or self._is_mjpeg):
            self._rotation, self._turn = frame.rotation, Orientation.of(side_data(frame))
            if not self._changed:
                self._notes.turn_changed(self._index)
            self._changed = True
        self._index += 1
        return self._turn


class _Times:
    """Times of the frames of a file, in ticks, and which of them are read."""

    def __init__(self, trim: Trim, time_base: Fraction) -> None:
        self._trim, self._index, self._own = trim, 0, 0
        self.time_base = time_base
        self.all = list[int]()
        self.read = list[int]()
        self.ended_at: int | None = None
        """Time of the first frame after the part that is read."""

    @property
    def zero(self) -> int:
        """The time that becomes zero, after the first frame that is read."""
        return self.read[0] if self._trim.begins_later else 0

    def add(self, time: int, own: int) -> bool:
        """Add a frame with its time and what the file says of its duration, and return whether it is read."""
        self.all.append(time)
        if self._trim.is_before(time * self.time_base):
            return False
        index, self._index = self._index, self._index + 1
        if self._trim.is_after(time * self.time_base) or (self._trim.stop is not None and index >= self._trim.stop):
            self.ended_at = time
        elif index >= self._trim.first:
            self.read.append(time)
            self._own = own
            return True
        return False

    def check(self, name: str) -> None:
        """Check the part that has been read so far, since a file's header may promise less. Raises VideoError."""
        seconds = float((self.read[-1] - self.zero) * self.time_base)
        current_limits().check_length(name, frames=len(self.read), seconds=seconds)

    def last_duration(self, rate: Fraction) -> int:
        """Return the duration of the last frame that is read: until the next one, where there is one."""
        if self.ended_at is not None:
            return self.ended_at - self.read[-1]
        return final_duration(self.all, self._own, time_base=self.time_base, rate=rate)


def _conversions(picture: _Picture, first: Any) -> Iterator[str]:
    """Yield what reading changes of a video's pictures or times, in words that change when the conversion does."""
    if picture.tone_map is not None:
        yield f"{picture.tone_map.name} to BT.709 by Hable, 203"
    if first.interlaced_frame:
        yield DEINTERLACING
    if picture.is_cropped:
        (rows, columns) = picture.crop
        yield f"crop {columns.start}:{columns.stop}, {rows.start}:{rows.stop}"
    by_lines = 1 if first.height >= _OLD_HD_LINES else 5
    if is_untagged(first) and untagged_matrix(first) != by_lines:
        yield "BT.709 by size"
    if picture.missed:
        yield "from the first frame that can be decoded"


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
