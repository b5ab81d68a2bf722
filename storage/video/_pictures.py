"""Animated GIFs, and zips of pictures, from frames one at a time."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av import VideoFormat
from av.filter import Graph
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from storage.video._labels import Labels
from storage.video._notes import Notes

__all__ = ["PICTURE_TIMES", "write_gif", "write_pictures"]

Frame: TypeAlias = npt.NDArray[np.uint8]

PICTURE_TIMES = "timestamps.txt"
"""Name of the file with the times of pictures, in the form that mkvmerge reads."""

_HUNDREDTH = Fraction(1, 100)
_SHORTEST = 2  # hundredths of a second; browsers show shorter frames for a tenth
_EPOCH = (1980, 1, 1, 0, 0, 0)  # in a zip, instead of a time that would differ each time


def write_gif(path: Path, frames: Iterable[Frame], *, start: Fraction, ends: Sequence[Fraction], notes: Notes) -> None:
    """Write an endless GIF, with colours of its own for each frame.

    Args:
        path: the file.
        frames: uint8 (height, width, 3).
        start: seconds at which the first frame begins.
        ends: seconds at which each frame ends; frames that would be too short for a GIF are left out.
        notes: where to note how many.
    """
    places = _gif_places(start, ends)
    last = round(ends[-1] / _HUNDREDTH) - max(place for place in places if place is not None)
    with av.open(str(path.absolute()), "w", format="gif", options={"final_delay": str(max(last, _SHORTEST))}) as target:
        stream: Any = None
        palette: _Palette | None = None
        for frame, place in zip(frames, places, strict=True):
            if place is None:
                continue
            if stream is None or palette is None:
                stream = target.add_stream("gif", rate=100)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "pal8"
                stream.time_base = stream.codec_context.time_base = _HUNDREDTH
                palette = _Palette((frame.shape[0], frame.shape[1]))
            picture = palette(frame)
            picture.pts, picture.time_base = place, _HUNDREDTH
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    if left_out := places.count(None):
        notes.gif_frames_left_out(left_out)


def _gif_places(start: Fraction, ends: Sequence[Fraction]) -> list[int | None]:
    """Return the hundredth of a second at which each frame begins; None for one that is left out."""
    places: list[int | None] = []
    last = -_SHORTEST
    for begin in (start, *ends[:-1]):
        place = round(begin / _HUNDREDTH)
        is_kept = place - last >= _SHORTEST
        places.append(place if is_kept else None)
        last = place if is_kept else last
    return places


class _Palette:
    """FFmpeg's choice of 256 colours for one frame after the other."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=size[1], height=size[0], format=VideoFormat("rgb24"), time_base=_HUNDREDTH
        )
        split = self._graph.add("split")
        colours = self._graph.add("palettegen", "stats_mode=single")
        use = self._graph.add("paletteuse", "new=1:dither=sierra2_4a")
        sink = self._graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(colours, 1, 0)
        colours.link_to(use, 0, 1)
        use.link_to(sink)
        self._graph.configure()
        self._count = 0

    def __call__(self, image: Frame) -> Any:
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = self._count, _HUNDREDTH
        self._count += 1
        self._graph.vpush(frame)
        return self._graph.vpull()


def write_pictures(
    path: Path, frames: Iterable[Frame], *, times: Sequence[Fraction], labels: Labels | None = None
) -> None:
    """Write a zip of PNG pictures, 000000.png and so on, and their times.

    Args:
        path: the file.
        frames: uint8 (height, width, 3).
        times: seconds at which each frame begins.
        labels: what each picture says of itself.
    """
    marks = PngInfo()
    if labels is not None:
        marks.add_itxt("XML:com.adobe.xmp", labels.xmp.decode())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for index, frame in enumerate(frames):
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "PNG", pnginfo=marks)
            target.writestr(zipfile.ZipInfo(f"{index:06d}.png", _EPOCH), buffer.getvalue())
        lines = ["# timestamp format v2", *(f"{float(1000 * time):.6f}" for time in times)]
        target.writestr(zipfile.ZipInfo(PICTURE_TIMES, _EPOCH), "\n".join(lines) + "\n")
