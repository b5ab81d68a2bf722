"""Formats of edited videos: containers, the codecs that each takes, and the settings of their encoders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import Any

import av

from storage.errors import VideoError
from storage.video._source import opened

__all__ = ["CONTAINERS", "Encoding", "SourceEncoding", "choose_encoding", "encoding_like", "source_encoding"]

_ROWS = ("yuv420p", "yuv422p", "yuv444p")
_TEN_BITS = ("yuv420p10le", "yuv422p10le", "yuv444p10le")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Codec:
    """One encoder."""

    encoder: str
    """FFmpeg's name."""
    pixel_formats: tuple[str, ...]
    """The default first."""
    crf: int | None
    """Default; None for an encoder without."""
    largest_crf: int = 51
    options: Mapping[str, str]
    has_gop: bool = True


# Without B-frames packets come in the order of the frames, so that any timestamps can be kept exactly. There is one
# thread, since the bytes must not depend on the machine's cores. x264's macroblock tree, which the preset turns on,
# reads memory that was never written, so that the same frames were encoded to different bytes in different processes;
# without it files are about 0.6 % larger.
_CODECS: Mapping[str, _Codec] = {
    "h264": _Codec(
        encoder="libx264",
        pixel_formats=(*_ROWS, *_TEN_BITS),
        crf=16,
        options={"preset": "fast", "bf": "0", "mbtree": "0"},
    ),
    "hevc": _Codec(
        encoder="libx265",
        pixel_formats=(*_ROWS, *_TEN_BITS),
        crf=18,
        options={"preset": "fast", "x265-params": "bframes=0:pools=none:frame-threads=1:wpp=0:log-level=error"},
    ),
    "av1": _Codec(
        encoder="libsvtav1",
        pixel_formats=("yuv420p", "yuv420p10le"),
        crf=24,
        largest_crf=63,
        options={"preset": "8", "svtav1-params": "lp=1"},
    ),
    "vp9": _Codec(
        encoder="libvpx-vp9",
        pixel_formats=_ROWS,
        crf=20,
        largest_crf=63,
        options={"b": "0", "deadline": "good", "cpu-used": "4"},
    ),
    "prores": _Codec(
        encoder="prores_ks",
        pixel_formats=("yuv422p10le", "yuv444p10le"),
        crf=None,
        options={"vendor": "apl0"},
        has_gop=False,
    ),
    "gif": _Codec(encoder="gif", pixel_formats=("pal8",), crf=None, options={}, has_gop=False),
    "png": _Codec(encoder="png", pixel_formats=("rgb24",), crf=None, options={}, has_gop=False),
}
_LEFT_CHROMA = ("h264", "hevc")  # of which decoders assume it
_PRORES_PROFILES = {"yuv422p10le": "3", "yuv444p10le": "4"}  # HQ and 4444

CONTAINERS: Mapping[str, tuple[str, ...]] = {
    "mp4": ("h264", "hevc", "av1"),
    "mov": ("h264", "hevc", "prores"),
    "mkv": ("h264", "hevc", "av1", "vp9", "prores"),
    "webm": ("vp9", "av1"),
    "gif": ("gif",),
    "png": ("png",),
}
"""Codecs that each container takes, the default first."""
_SUFFIXES = {"png": ".zip"}  # of which a folder is made where the video is delivered


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a video is written."""

    container: str = "mp4"
    """One of `CONTAINERS`; png stands for a picture for each frame."""
    codec: str = "h264"
    pixel_format: str = "yuv420p"
    """FFmpeg's name."""
    crf: int | None = 16
    """Quality, from 0 for the best; None where the codec has none or the bit rate is set."""
    gop: int | None = None
    """Frames from one keyframe to the next at most; None leaves it to the encoder."""
    bit_rate: int | None = None
    """Bits per second; None for a constant quality."""

    @property
    def suffix(self) -> str:
        """The ending of the file's name."""
        return _SUFFIXES.get(self.container, f".{self.container}")

    @property
    def encoder(self) -> str:
        """FFmpeg's name of the encoder."""
        return _CODECS[self.codec].encoder

    @property
    def chroma(self) -> str | None:
        """Where chroma is sampled, by FFmpeg's name: where decoders look for it; None for the middle."""
        return "left" if self.codec in _LEFT_CHROMA and "420" in self.pixel_format else None

    @property
    def options(self) -> dict[str, str]:
        """Options of the encoder."""
        found = dict(_CODECS[self.codec].options)
        if self.crf is not None:
            found["crf"] = str(self.crf)
        if self.gop is not None:
            found["g"] = str(self.gop)
        if self.codec == "prores":
            found["profile"] = _PRORES_PROFILES[self.pixel_format]
        if self.codec == "vp9" and self.bit_rate is not None:
            found.pop("b")
        return found

    @property
    def even(self) -> tuple[int, int]:
        """What height and width must be multiples of."""
        if self.pixel_format.startswith("yuv420"):
            return 2, 2
        return (1, 2) if self.pixel_format.startswith("yuv422") else (1, 1)

    def identity(self) -> dict[str, Any]:
        """Return the settings that differ from the default."""
        return {name: value for name, value in asdict(self).items() if value != getattr(Encoding(), name)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEncoding:
    """How a source is encoded."""

    codec: str = ""
    """FFmpeg's name."""
    pixel_format: str = ""
    bit_rate: int | None = None
    """Bits per second of the video stream; None where the file does not say it."""
    gop: int | None = None
    """The median of frames from one keyframe to the next; None where the file has no index of them."""


def choose_encoding(
    container: str,
    *,
    codec: str | None = None,
    pixel_format: str | None = None,
    crf: int | None = None,
    gop: int | None = None,
) -> Encoding:
    """Return an encoding; None leaves a choice to the container and the codec.

    Raises:
        VideoError: one sentence about the first part of a combination that cannot be written.
    """
    if container not in CONTAINERS:
        raise VideoError(f"the container {container} is unknown: choose one of {', '.join(CONTAINERS)}")
    codecs = CONTAINERS[container]
    codec = codec or codecs[0]
    if codec not in codecs:
        raise VideoError(f"{container} cannot contain {codec}: choose {_listed(codecs)}, or another format")
    found = _CODECS[codec]
    if found.encoder not in av.codecs_available:
        raise VideoError(f"this installation of FFmpeg cannot encode {codec} (it has no {found.encoder})")
    if (pixel_format := pixel_format or found.pixel_formats[0]) not in found.pixel_formats:
        raise VideoError(f"{codec} cannot be encoded as {pixel_format}: choose {_listed(found.pixel_formats)}")
    if crf is not None and found.crf is None:
        raise VideoError(f"{codec} has no CRF: leave it out")
    if crf is not None and not 0 <= crf <= found.largest_crf:
        raise VideoError(f"the CRF of {codec} is from 0 to {found.largest_crf}, not {crf}")
    if gop is not None and not found.has_gop:
        raise VideoError(f"{codec} has keyframes only: leave the distance between keyframes out")
    return Encoding(
        container=container,
        codec=codec,
        pixel_format=pixel_format,
        crf=found.crf if crf is None else crf,
        gop=gop,
    )


def encoding_like(
    source: SourceEncoding,
    container: str,
    *,
    codec: str | None = None,
    pixel_format: str | None = None,
    crf: int | None = None,
    gop: int | None = None,
) -> Encoding:
    """Return an encoding like a source's, as far as the container and the encoders allow; what is given goes first.

    Raises:
        VideoError: see `choose_encoding`.
    """
    own = source.codec if source.codec in CONTAINERS.get(container, ()) else None
    same = own is not None and _CODECS[own].encoder in av.codecs_available and codec in (None, own)
    chosen = choose_encoding(container, codec=own if same else codec, pixel_format=pixel_format, crf=crf, gop=gop)
    found = _CODECS[chosen.codec]
    wanted = source.pixel_format.replace("yuvj", "yuv")
    if pixel_format is None and wanted in found.pixel_formats:
        chosen = replace(chosen, pixel_format=wanted)
    if gop is None and found.has_gop:
        chosen = replace(chosen, gop=source.gop)
    if crf is None and found.crf is not None and same and source.bit_rate:
        chosen = replace(chosen, crf=None, bit_rate=source.bit_rate)
    return chosen


def source_encoding(path: str | Path) -> SourceEncoding:
    """Return how a file is encoded, from its header.

    Raises:
        VideoError: if it is not a video.
    """
    with opened(path) as (container, stream):
        codec = stream.codec_context
        keys = [index for index, entry in enumerate(stream.index_entries) if entry.is_keyframe]
        steps = [after - before for before, after in pairwise(keys)]
        is_indexed = "mp4" in container.format.name.split(",") and steps != []
        return SourceEncoding(
            codec=codec.codec.canonical_name,
            pixel_format=codec.pix_fmt or "",
            bit_rate=codec.bit_rate or None,
            gop=median_low(steps) if is_indexed else None,
        )


def silence_encoders() -> None:
    """Let SVT-AV1 print errors only; it reads this variable when an encoder is opened."""
    os.environ.setdefault("SVT_LOG", "1")


def _listed(names: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
