"""Crop: the part of stored pictures that a container says is shown, such as MP4's clean aperture.

PyAV does not expose this part of a stream's description, but copies it with the stream. So it is read from the header
of a Matroska file of that stream, which is written into memory.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, TypeAlias

import av
import av.error

__all__ = ["Crop", "crop_of"]

Crop: TypeAlias = tuple[slice, slice]
"""Rows and columns of a stored picture that are shown."""

_CROPPING_FORMATS = frozenset({"matroska", "mp4"})
# Elements of Matroska (RFC 9559): those that contain others, on the way to a video's description
_PARENTS = frozenset({0x18538067, 0x1654AE6B, 0xAE, 0xE0})
_BOTTOM, _TOP, _LEFT, _RIGHT = 0x54AA, 0x54BB, 0x54CC, 0x54DD


def crop_of(container: Any, stream: Any, size: tuple[int, int]) -> Crop:
    """Return the part of stored pictures (height, width) that is shown: all of it unless the container says less."""
    found = _margins(stream) if not _CROPPING_FORMATS.isdisjoint(container.format.name.split(",")) else {}
    rows = slice(found.get(_TOP, 0), size[0] - found.get(_BOTTOM, 0))
    columns = slice(found.get(_LEFT, 0), size[1] - found.get(_RIGHT, 0))
    if rows.start < rows.stop and columns.start < columns.stop:
        return rows, columns
    return slice(0, size[0]), slice(0, size[1])


def _margins(stream: Any) -> dict[int, int]:
    """Return the pixels that are not shown, by the number of Matroska's element."""
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="matroska") as target:
            target.add_stream_from_template(stream)
            target.start_encoding()
    except (av.error.FFmpegError, ValueError):  # a codec that Matroska does not have
        return {}
    sides = {_BOTTOM, _TOP, _LEFT, _RIGHT}
    return {number: int.from_bytes(data, "big") for number, data in _elements(header.getvalue()) if number in sides}


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and content of all elements, those inside others as well."""
    place = 0
    while place + 1 < len(data):
        number, place = _number(data, place, keep_marker=True)
        length, place = _number(data, place, keep_marker=False)
        content = data[place : place + length]
        place += length
        if number in _PARENTS:
            yield from _elements(content)
        else:
            yield number, content


def _number(data: bytes, place: int, *, keep_marker: bool) -> tuple[int, int]:
    """Read a number of variable length and return it with the place after it; the first bit set marks its length."""
    width = 9 - data[place].bit_length() if place < len(data) else 1
    value = int.from_bytes(data[place : place + width], "big")
    return value if keep_marker else value & ((1 << 7 * width) - 1), place + width
