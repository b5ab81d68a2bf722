"""Data that decoders attach to a frame: the display matrix and the brightness of HDR."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction
from typing import Any, cast

from av.filter import Graph
from av.sidedata.sidedata import Type

__all__ = ["attached_types", "side_data"]

_NEWEST: int = max(cast("Any", kind).value for kind in Type)
_UNNAMED = 32  # types after the newest that PyAV names, far more than FFmpeg has


def side_data(frame: Any) -> dict[str, bytes]:
    """Return a frame's side data by PyAV's name of its type; types that PyAV cannot name are left out."""
    try:
        found = frame.side_data
    except ValueError:
        found = _without_unnamed(frame).side_data
    return {data.type.name: bytes(data) for data in found}


def attached_types(frame: Any) -> Collection[str]:
    """Return PyAV's names of the types of a frame's side data; none where PyAV cannot name one of them."""
    try:
        return {data.type.name for data in frame.side_data}
    except ValueError:  # to ask a filter for the others would take too long for every frame
        return ()


def _without_unnamed(frame: Any) -> Any:
    """Return a frame without the types that PyAV cannot name, such as EXIF: it lists none where one of them occurs."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1)
    )
    deletions = [graph.add("sidedata", f"mode=delete:type={_NEWEST + after}") for after in range(1, _UNNAMED + 1)]
    graph.link_nodes(source, *deletions, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()
