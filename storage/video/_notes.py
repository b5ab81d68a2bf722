"""Notes: one sentence for each thing that reading or writing a video lost or changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

__all__ = ["Notes"]

_SHOWN_TAGS = 5
_STREAMS = {
    "subtitle": ("subtitle track", "subtitle tracks"),
    "data": ("data track, such as telemetry or a timecode,", "data tracks, such as telemetry or a timecode,"),
    "attachment": ("attached file", "attached files"),
    "video": ("other video track", "other video tracks"),
    "cover": ("cover picture", "cover pictures"),
    "chapter": ("chapter mark", "chapter marks"),
    "page": ("further picture of the file", "further pictures of the file"),
    "audio": ("audio track that cannot be decoded", "audio tracks that cannot be decoded"),
}
_DOLBY_VISION = "Dolby Vision metadata is not applied: colours may differ."
_MARKS = {
    "A53_CC": "Closed captions are not kept.",
    "SPHERICAL": "The mark of a 360-degree video is not kept.",
    "STEREO3D": "The mark of a stereoscopic video is not kept.",
    "DOVI_RPU_BUFFER": _DOLBY_VISION,
    "DOVI_METADATA": _DOLBY_VISION,
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata is not applied.",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata is not applied.",
}


class Notes:
    """Collection of notes in the order in which they were made, each once; a video without notes lost nothing."""

    def __init__(self) -> None:
        """Begin without notes."""
        self._lines: dict[str, None] = {}

    @property
    def lines(self) -> list[str]:
        """The notes."""
        return list(self._lines)

    def _add(self, line: str) -> None:
        self._lines[line] = None

    def streams_left_out(self, counts: Mapping[str, int]) -> None:
        """Note the streams that an edited video does not have, by kind."""
        for kind, count in counts.items():
            if count:
                name = _STREAMS[kind][count > 1]
                self._add(f"{count} {name} {'are' if count > 1 else 'is'} not kept.")

    def marks_left_out(self, types: Collection[str]) -> None:
        """Note what is attached to a frame and not to the output's, by PyAV's names of its types."""
        for name, line in _MARKS.items():
            if name in types:
                self._add(line)

    def profile_left_out(self, profile: bytes) -> None:
        """Note an ICC colour profile, of which the name is in ASCII or UTF-16."""
        if profile and not any("sRGB".encode(encoding) in profile for encoding in ("ascii", "utf-16-be")):
            self._add("The picture's ICC colour profile is not applied: its colours are read as sRGB.")

    def tags_left_out(self, names: Sequence[str]) -> None:
        """Note metadata of the container that the output does not have."""
        if names:
            shown = ", ".join(names[:_SHOWN_TAGS]) + (" and others" if len(names) > _SHOWN_TAGS else "")
            self._add(f"Metadata other than title and creation time is not kept: {shown}.")

    def frames_missing(self, missing: int, total: int) -> None:
        """Note frames that the file should contain and that could not be decoded."""
        self._add(f"{missing} of {total} frames are missing: the file is damaged or ends early.")

    def end_unreadable(self) -> None:
        """Note a file that ends in damage, without a word on what should be there."""
        self._add("The file cannot be read to its end: it is damaged.")

    def frames_damaged(self, damaged: int) -> None:
        """Note frames that were decoded from damaged data."""
        self._add(f"{damaged} {'frames are' if damaged > 1 else 'frame is'} damaged and shown as far as decoded.")

    def start_left_out(self, seconds: Fraction) -> None:
        """Note a start that cannot be decoded."""
        self._add(f"The first {float(seconds):.2f} s cannot be decoded and are left out, with their sound.")

    def trimmed(self, start: Fraction, end: Fraction, frames: int) -> None:
        """Note that only a part of a video is read, in seconds of the whole."""
        several = f"{frames} frames" if frames > 1 else "1 frame"
        self._add(f"Only the part from {float(start):.3f} s to {float(end):.3f} s is kept, as asked: {several}.")

    def rate_assumed(self, rate: Fraction) -> None:
        """Note pictures that are shown at a rate that nobody has named."""
        self._add(f"The pictures are shown at {rate} per second: --rate chooses another rate.")

    def tone_mapped(self, name: str) -> None:
        """Note HDR that became SDR."""
        self._add(f"The colours are {name} and were tone-mapped to BT.709 (Hable's curve, white at 203 cd/m2).")

    def gamut_converted(self, name: str) -> None:
        """Note wide primaries that became BT.709."""
        self._add(f"The colours have {name} primaries and were converted to BT.709; what BT.709 lacks is clipped.")

    def colours_not_applied(self, declared: str, applied: str) -> None:
        """Note colours that are declared in a way that is not followed."""
        self._add(f"The colours have {declared}, which is not applied: they are read with {applied}.")

    def turned_roughly(self) -> None:
        """Note a display matrix other than a quarter turn."""
        self._add(
            "The pictures are rotated by other than quarter turns, or skewed: the nearest quarter turn is applied."
        )

    def turn_changed(self, frame: int) -> None:
        """Note frames that are rotated otherwise than the first one."""
        self._add(f"From frame {frame} on pictures are rotated otherwise: turned upright and fitted in.")

    def pixel_aspect_changed(self, frame: int, aspect: Fraction) -> None:
        """Note pixels of another shape in mid-stream."""
        shape = f"{aspect.numerator}:{aspect.denominator}"
        self._add(f"About frame {frame} the shape of pixels becomes {shape}: they are shown as the first ones.")

    def times_repaired(self, count: int) -> None:
        """Note times that do not increase."""
        several = "frames have times that do" if count > 1 else "frame has a time that does"
        self._add(f"{count} {several} not increase: shown directly after the frame before.")

    def depth_reduced(self, bits: int) -> None:
        """Note samples of more than 8 bits."""
        self._add(f"Colours of {bits} bits became 8 bits.")

    def transparency_left_out(self) -> None:
        """Note alpha."""
        self._add("Transparency is not kept: the colours below it are shown.")

    def interlaced(self, *, deinterlaced: bool) -> None:
        """Note frames of two fields."""
        became = "it was deinterlaced (bwdif, one frame for two fields)" if deinterlaced else "its fields were kept"
        self._add(f"The video is interlaced: {became}.")

    def size_changed(self, frame: int, size: tuple[int, int]) -> None:
        """Note pictures of another size (height, width), from a frame on."""
        self._add(f"From frame {frame} on pictures are {size[1]}x{size[0]}: fitted in with black borders.")

    def sides_made_even(self, size: tuple[int, int], written: tuple[int, int]) -> None:
        """Note a size (height, width) that cannot be encoded with subsampled colour."""
        self._add(
            f"The size {size[1]}x{size[0]} is odd, so the video is {written[1]}x{written[0]}: its last row or column "
            "is repeated."
        )

    def no_sound_or_times(self, *, has_audio: bool) -> None:
        """Note what a folder of pictures does not have."""
        self._add("The pictures have no times: timestamps.txt next to them states those of the source.")
        if has_audio:
            self._add("Audio is not kept: pictures have none.")

    def gif(self, *, has_audio: bool) -> None:
        """Note what a GIF does not have."""
        self._add("The GIF has 256 colours in each frame, and times in hundredths of a second.")
        if has_audio:
            self._add("Audio is not kept: a GIF has none.")

    def gif_frames_left_out(self, count: int) -> None:
        """Note frames that are too short for a GIF."""
        self._add(f"{count} frames are left out of the GIF, which shows each for 0.02 s at least.")

    def encoded_unlike(self, names: Sequence[str]) -> None:
        """Note what is not encoded as in the source, though that was asked for."""
        self._add(f"The {' and the '.join(names)} could not be kept: the output's format or encoder does not have it.")

    def audio_encoded(self, codec: str, target: str) -> None:
        """Note audio that could not be copied."""
        self._add(f"Audio in {codec} was encoded again, as {target}: the output's container does not play it as it is.")

    def audio_mixed(self, channels: int, layout: str) -> None:
        """Note channels that share one of the output."""
        self._add(f"Audio of {channels} channels was mixed to {layout}: the output's codec has no layout of them all.")

    def audio_left_out(self, codec: str) -> None:
        """Note audio that could neither be copied nor encoded."""
        self._add(f"Audio in {codec} is not kept: it cannot be decoded.")

    def audio_damaged(self, packets: int) -> None:
        """Note packets of audio that were left out."""
        self._add(f"Audio is damaged: {packets} of its packets are left out.")

    def audio_cut(self, seconds: Fraction) -> None:
        """Note audio beyond the end of the pictures."""
        self._add(f"Audio after {float(seconds):.2f} s is left out: the pictures end there.")
