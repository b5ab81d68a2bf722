"""Notes on what decoded frames lose, also where that begins in mid-stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from storage.video._colour import has_transparency, unapplied_colours
from storage.video._notes import Notes
from storage.video._side_data import attached_types
from storage.video._tone_mapping import ToneMaps

__all__ = ["FrameNotes"]

_BITS = 8
_NOTED = 20  # changes of size; a damaged file may have one in each frame


class FrameNotes:
    """Look at frames as they are decoded."""

    def __init__(self, notes: Notes, codec: Any, tone_maps: ToneMaps, *, deinterlaced: bool) -> None:
        """Begin before the first frame.

        Args:
            notes: where to note.
            codec: the decoder.
            tone_maps: how the frames' colours are converted.
            deinterlaced: whether frames of two fields become pictures of one moment.
        """
        self._notes, self._codec, self._tone_maps, self._deinterlaced = notes, codec, tone_maps, deinterlaced
        self._changes = 0
        self._aspect = Fraction(codec.sample_aspect_ratio or 1)

    def passed(self, frames: Iterable[Any], size: tuple[int, int]) -> Iterator[Any]:
        """Yield frames, of which the first has a size (height, width)."""
        colours: object = None
        for index, frame in enumerate(frames):
            if frame.interlaced_frame:
                self._notes.interlaced(deinterlaced=self._deinterlaced)
            if (frame.height, frame.width) != size:
                size = frame.height, frame.width
                self._changes += 1
                if self._changes <= _NOTED:
                    self._notes.size_changed(index, size)
            kind = frame.format.name, frame.color_trc, frame.color_primaries, frame.colorspace
            if kind != colours:
                colours = kind
                self._note_colours(frame)
            if has_transparency(frame):
                self._notes.transparency_left_out()
            self._note_aspect(index)
            self._notes.marks_left_out(attached_types(frame))
            yield frame

    def _note_colours(self, frame: Any) -> None:
        if (tone_map := self._tone_maps.of(frame)) is not None:
            (self._notes.tone_mapped if tone_map.is_hdr else self._notes.gamut_converted)(tone_map.name)
        if (bits := max(part.bits for part in frame.format.components)) > _BITS:
            self._notes.depth_reduced(bits)
        for declared, applied in unapplied_colours(frame, codec=self._codec.name):
            self._notes.colours_not_applied(declared, applied)

    def _note_aspect(self, index: int) -> None:
        """Note another shape of pixels, which a decoder states for the frames that it has begun."""
        aspect = Fraction(self._codec.sample_aspect_ratio or 1)
        if aspect not in (self._aspect, 0):
            self._aspect = aspect
            self._changes += 1
            if self._changes <= _NOTED:
                self._notes.pixel_aspect_changed(index, aspect)
