"""Conversion of stored pictures to RGB and back, by the matrix and range that the stream declares.

Only matrix and range are converted. Primaries and transfer curve stay as they are, so HDR (PQ, HLG) videos keep their
code values and are not tone-mapped.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.video.reformatter import VideoReformatter

__all__ = ["FromRgb", "ToRgb", "tag_as_bt709"]

_BT709 = 1  # in both ffmpeg's tags and swscale's table
_LIMITED, _FULL = 1, 2
_UNSPECIFIED = 2
_SWSCALE_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # from a stream's tag to a number in swscale's table
_SD_MATRIX = 5
_HD_LINES = 720
# Formats that imply full range, since decoders may leave the flag of the range unset
_FULL_RANGE_FORMATS = ("yuvj", "rgb", "bgr", "gbr", "argb", "abgr", "pal8")
# bicubic | full chroma interpolation | full chroma input | accurate rounding | bit-exact: the same on every processor
_SCALER = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000


class ToRgb:
    """Converter of decoded frames to RGB images, all of the first frame's size."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()  # one for all frames, since each allocates buffers of a picture's size
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: Any) -> npt.NDArray[np.uint8]:
        """Convert a frame to RGB uint8 (height, width, 3).

        A stream that does not declare its matrix is read as BT.709 from 720 lines on and as BT.601 below, as players
        do.
        """
        self._size = self._size or (frame.width, frame.height)
        full = frame.color_range == _FULL or frame.format.name.startswith(_FULL_RANGE_FORMATS)
        guess = _BT709 if frame.height >= _HD_LINES else _SD_MATRIX
        converted = self._scaler.reformat(
            frame,
            width=self._size[0],
            height=self._size[1],
            format="rgb24",
            src_colorspace=_SWSCALE_MATRIX.get(int(frame.colorspace), guess),
            src_color_range=_FULL if full else _LIMITED,
            dst_color_range=_FULL,
            interpolation=_SCALER,
        )
        return cast("npt.NDArray[np.uint8]", converted.to_ndarray())


class FromRgb:
    """Converter of RGB images to BT.709 limited-range yuv420p frames."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def __call__(self, image: npt.NDArray[np.uint8]) -> Any:
        """Convert an image (height, width, 3) with even sides to a frame."""
        return self._scaler.reformat(
            VideoFrame.from_ndarray(image, format="rgb24"),
            format="yuv420p",
            src_color_range=_FULL,
            dst_colorspace=_BT709,
            dst_color_range=_LIMITED,
            interpolation=_SCALER,
        )


def tag_as_bt709(codec: Any) -> None:
    """Declare the colours of `FromRgb` in an encoder, so that every player decodes them the same way."""
    codec.color_range = _LIMITED
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
