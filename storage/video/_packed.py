"""Packing: pictures that FFmpeg does not read as a video become a QuickTime file of PNG pictures, without loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["is_animated_webp", "pack_webp", "write_packed"]

Frame: TypeAlias = npt.NDArray[np.uint8]

_ANIMATION_FLAG = 0x02  # in the flags of WebP's extended header
_MILLISECOND = Fraction(1, 1000)
_UNSAID = 100  # ms, for which browsers show a frame that says no duration


def write_packed(target: Path, frames: Iterable[tuple[Frame, int]], *, time_base: Fraction) -> None:
    """Write frames as a video without loss; the bytes depend on them alone.

    Args:
        target: the file.
        frames: pictures, uint8 (height, width, 3 or 4), all of the first one's shape, with their durations in ticks.
        time_base: seconds per tick.
    """
    options = {"movie_timescale": str(time_base.denominator)}
    with av.open(str(target.absolute()), "w", format="mov", options=options) as container:
        stream: Any = None
        time = 0
        for image, duration in frames:
            kind = "rgba" if image.shape[2] == 4 else "rgb24"
            if stream is None:
                stream = container.add_stream("png", rate=1 / time_base, options={"compression_level": "1"})
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = kind
                stream.time_base = stream.codec_context.time_base = time_base
                stream.codec_context.thread_count = 1
            frame = av.VideoFrame.from_ndarray(image, format=kind)
            frame.pts, frame.time_base = time, time_base
            for packet in stream.encode(frame):  # each frame's at once
                packet.duration = duration
                container.mux(packet)
            time += duration
        if stream is not None:
            container.mux(stream.encode(None))


def is_animated_webp(path: Path) -> bool:
    """Return whether a file is a WebP picture of several frames."""
    with path.open("rb") as file:
        head = file.read(21)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:] and head[20] & _ANIMATION_FLAG)


def pack_webp(path: Path, target: Path) -> None:
    """Write an animated WebP as a video, with the duration and the transparency of each frame.

    Raises:
        OSError, ValueError: if it cannot be read.
    """
    with Image.open(path) as picture:
        write_packed(target, _webp_frames(picture), time_base=_MILLISECOND)


def _webp_frames(picture: Any) -> Iterator[tuple[Frame, int]]:
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    for index in range(picture.n_frames):
        picture.seek(index)
        yield np.asarray(picture.convert(mode)), int(picture.info.get("duration") or _UNSAID)
