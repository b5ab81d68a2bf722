"""Deinterlacing: frames of two fields become pictures of one moment, by FFmpeg's filter bwdif.

Each frame becomes one frame, with its own time; frames that are not flagged as interlaced pass unchanged.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import av.error
from av.filter import Graph

__all__ = ["DEINTERLACING", "deinterlaced"]

DEINTERLACING = "deinterlaced by bwdif"
"""What is converted, as one of `VideoInfo.conversions`."""

_FILTER, _OPTIONS = "bwdif", "mode=send_frame:parity=auto:deint=interlaced"
_SMALLEST = 4  # lines and columns that the filter needs


def deinterlaced(frames: Iterable[Any]) -> Iterator[Any]:
    """Yield decoded frames deinterlaced, with times and colours of their own."""
    fields: _Fields | None = None
    for frame in frames:
        if fields is not None and not fields.fits(frame):
            yield from fields.finish()
            fields = None
        if fields is None and frame.interlaced_frame and min(frame.width, frame.height) >= _SMALLEST:
            fields = _Fields(frame)
        if fields is None:
            yield frame
        else:
            yield from fields.push(frame)
    if fields is not None:
        yield from fields.finish()


class _Fields:
    """The filter, for frames of one size and format; it looks one frame ahead."""

    def __init__(self, frame: Any) -> None:
        self._kind = _kind(frame)
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        self._graph.link_nodes(source, self._graph.add(_FILTER, _OPTIONS), self._graph.add("buffersink")).configure()
        self._waiting: deque[dict[str, Any]] = deque()

    def fits(self, frame: Any) -> bool:
        return _kind(frame) == self._kind

    def push(self, frame: Any) -> Iterator[Any]:
        names = ("pts", "dts", "time_base", "duration", "colorspace", "color_range", "color_trc", "color_primaries")
        self._waiting.append({name: getattr(frame, name) for name in names})
        self._graph.vpush(frame)
        return self._ready()

    def finish(self) -> Iterator[Any]:
        self._graph.vpush(None)
        return self._ready()

    def _ready(self) -> Iterator[Any]:
        """Yield the frames that the filter has finished, each with what the frame that it was made from declares."""
        with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                frame = self._graph.vpull()
                for name, value in self._waiting.popleft().items():
                    setattr(frame, name, value)
                yield frame


def _kind(frame: Any) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
