"""Conversion of stored pictures to RGB and back, by the matrix and range that the stream declares.

Pictures with HDR or wide primaries are tone-mapped as well; of others only matrix and range are converted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from av import VideoFormat, VideoFrame
from av.filter import Graph
from av.video.reformatter import VideoReformatter

from storage.video._tone_mapping import ToneMaps

__all__ = [
    "FromRgb",
    "ToRgb",
    "has_transparency",
    "is_untagged",
    "tag_as_bt709",
    "unapplied_colours",
    "untagged_matrix",
]

_BT709 = 1  # in both ffmpeg's tags and swscale's table
_LIMITED, _FULL = 1, 2
_UNSPECIFIED = 2
_SWSCALE_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # from a stream's tag to a number in swscale's table
_SD_MATRIX = 5
_MATRIX_NAMES = {1: "BT.709", 5: "BT.601", 9: "BT.2020"}
_UNAPPLIED_MATRICES = {
    **{8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "SMPTE 2085", 12: "of its primaries"},
    **{13: "of its primaries", 14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"},
}
_UNAPPLIED_TRANSFERS = {8: "linear", 9: "logarithmic", 10: "logarithmic", 17: "SMPTE 428"}
_HD_WIDTH, _SD_LINES = 1280, 576
# Formats that imply full range, since decoders may leave the flag of the range unset
_FULL_RANGE_FORMATS = ("yuvj", "rgb", "bgr", "gbr", "argb", "abgr", "pal8")
_ALPHA_FORMATS = re.compile(r"yuva|rgba|bgra|argb|abgr|gbrap|ya8|ya16|pal8")
# bicubic | full chroma interpolation | full chroma input | accurate rounding | bit-exact: the same on every processor
_SCALER = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000
_FILTER_SCALER = "bicubic+full_chroma_int+full_chroma_inp+accurate_rnd+bitexact"  # the same, by the names of a filter


class ToRgb:
    """Converter of decoded frames to RGB images, all of one size."""

    def __init__(self, size: tuple[int, int], tone_maps: ToneMaps | None = None) -> None:
        """Prepare the conversion to a size (height, width), with tone mapping where frames need it."""
        self._scaler = VideoReformatter()  # one for all frames, since each allocates buffers of a picture's size
        self._tone_maps, self._size = tone_maps or ToneMaps(), size

    def __call__(self, frame: Any) -> npt.NDArray[np.uint8]:
        """Convert a frame to RGB uint8 (height, width, 3); one of another size is fitted in with black borders."""
        size = _fitted((frame.height, frame.width), self._size)
        tone_map = self._tone_maps.of(frame)
        full = frame.color_range == _FULL or frame.format.name.startswith(_FULL_RANGE_FORMATS)
        converted = self._scaler.reformat(
            frame,
            width=size[1],
            height=size[0],
            format="rgb48le" if tone_map else "rgb24",
            src_colorspace=_SWSCALE_MATRIX.get(int(frame.colorspace), untagged_matrix(frame)),
            src_color_range=_FULL if full else _LIMITED,
            dst_color_range=_FULL,
            interpolation=_SCALER,
        )
        image: Any = converted.to_ndarray()
        return _bordered(tone_map(image) if tone_map else image, self._size)

    def fitted(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return an RGB image fitted in like a frame."""
        if image.shape[:2] == self._size:
            return image
        return self(VideoFrame.from_ndarray(image, format="rgb24"))


def untagged_matrix(frame: Any) -> int:
    """Return the matrix of a stream that declares none: BT.709 for sizes of HD, BT.601 for others, as in players."""
    return _BT709 if frame.width >= _HD_WIDTH or frame.height > _SD_LINES else _SD_MATRIX


def is_untagged(frame: Any) -> bool:
    """Return whether a frame of luma and chroma does not declare its matrix."""
    return int(frame.colorspace) not in _SWSCALE_MATRIX and not frame.format.is_rgb


def unapplied_colours(frame: Any, *, codec: str) -> Iterator[tuple[str, str]]:
    """Yield what a frame declares of its colours and reading does not follow, and what it is taken for, in words."""
    matrix = _UNAPPLIED_MATRICES.get(int(frame.colorspace))
    if matrix is not None and not frame.format.is_rgb:
        applied = int(frame.colorspace) if int(frame.colorspace) in _SWSCALE_MATRIX else untagged_matrix(frame)
        yield f"the matrix {matrix}", _MATRIX_NAMES[_SWSCALE_MATRIX[applied]]
    transfer = int(frame.color_trc)
    if transfer in _UNAPPLIED_TRANSFERS or codec == "exr":
        yield f"the transfer function {_UNAPPLIED_TRANSFERS.get(transfer, 'linear')}", "that of BT.709"


def has_transparency(frame: Any) -> bool:
    """Return whether a frame has pixels that are not opaque."""
    if not _ALPHA_FORMATS.search(frame.format.name):
        return False
    alpha = frame.reformat(format="rgba").to_ndarray()[..., 3]
    return bool(alpha.min() < 255)


def _fitted(size: tuple[int, int], into: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size (height, width) of the same shape within another."""
    if size == into:
        return size
    scale = min(into[0] / size[0], into[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _bordered(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    if image.shape[:2] == size:
        return image
    result = np.zeros((*size, 3), np.uint8)
    height, width = image.shape[:2]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    result[top : top + height, left : left + width] = image
    return result


class FromRgb:
    """Converter of RGB images of one size to BT.709 limited-range frames."""

    def __init__(self, pixel_format: str, *, chroma: str | None = None) -> None:
        """Prepare the conversion to a format.

        Args:
            pixel_format: by FFmpeg's name.
            chroma: where chroma is sampled, by FFmpeg's name, such as left; in the middle by default.
        """
        options = f"in_range=full:out_range=limited:out_color_matrix=bt709:flags={_FILTER_SCALER}"
        self._options = options + (f":out_chroma_loc={chroma}" if chroma else "")
        self._format = pixel_format
        self._graph: Graph | None = None

    def __call__(self, image: npt.NDArray[np.uint8]) -> Any:
        """Convert an image (height, width, 3), with the even sides that the format needs, to a frame."""
        if self._graph is None:
            self._graph = self._made(image.shape[1], image.shape[0])
        frame = VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = 0
        self._graph.vpush(frame)
        return self._graph.vpull()

    def _made(self, width: int, height: int) -> Graph:
        graph = Graph()
        source = graph.add_buffer(width=width, height=height, format=VideoFormat("rgb24"), time_base=Fraction(1))
        scale, chosen = graph.add("scale", self._options), graph.add("format", self._format)
        graph.link_nodes(source, scale, chosen, graph.add("buffersink")).configure()
        return graph


def tag_as_bt709(codec: Any) -> None:
    """Declare the colours of `FromRgb` in an encoder, so that every player decodes them the same way."""
    codec.color_range = _LIMITED
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
