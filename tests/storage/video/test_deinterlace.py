from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.filter import Graph

from storage.video import FrameReader, Notes, probe

Image = npt.NDArray[np.uint8]
DEINTERLACED = "The video is interlaced: it was deinterlaced (bwdif, one frame for two fields)."
KEPT = "The video is interlaced: its fields were kept."


def bar(time: int) -> Image:
    """Draw a bright bar that moves three pixels per field."""
    image = np.full((64, 96, 3), 40, np.uint8)
    image[:, 8 + 3 * time : 24 + 3 * time] = 220
    return image


def woven(first: int, *, top_first: bool) -> Image:
    """Return a frame whose two fields are of successive moments."""
    frame = bar(first)
    later = slice(1, None, 2) if top_first else slice(0, None, 2)
    frame[later] = bar(first + 1)[later]
    return frame


def write(path: Path, frames: list[Image], *, top_first: bool, times: list[int], flagged: bool = True) -> Path:
    graph = Graph()
    source = graph.add_buffer(width=96, height=64, format="yuv420p", time_base=Fraction(1, 25))
    order = ("tff" if top_first else "bff") if flagged else "prog"
    graph.link_nodes(source, graph.add("setfield", order), graph.add("buffersink")).configure()
    with av.open(str(path), "w") as container:
        options = {"flags": "+ildct+ilme", "b": "4000000", "g": "5"} if flagged else {"b": "4000000"}
        stream: Any = container.add_stream("mpeg2video", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for time, image in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            graph.vpush(frame)
            container.mux(stream.encode(graph.vpull()))
        container.mux(stream.encode(None))
    return path


def combing(frames: list[Image]) -> float:
    """Return how much a line differs from the mean of its neighbours."""
    luma = np.stack(frames).mean(axis=3)[:, 4:-4]
    return float(np.abs(luma[:, 1:-1] - (luma[:, :-2] + luma[:, 2:]) / 2).mean())


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize("name", ["clip.mpg", "clip.mkv", "clip.ts"])
def test_fields_become_pictures_of_one_moment_with_their_times(name: str, top_first: bool, tmp_path: Path) -> None:
    frames = [woven(2 * index, top_first=top_first) for index in range(10)]
    path = write(tmp_path / name, frames, top_first=top_first, times=list(range(10)))
    seen: dict[bool, tuple[list[int], float, list[str]]] = {}
    for deinterlace in (True, False):
        notes = Notes()
        pairs = list(FrameReader(path, deinterlace=deinterlace, notes=notes))
        seen[deinterlace] = [time for time, _ in pairs], combing([frame for _, frame in pairs]), notes.lines
    assert len(seen[True][0]) == 10
    steps = {after - before for before, after in itertools.pairwise(seen[True][0])}
    assert {round(step * probe(path).time_base * 25) for step in steps} == {1}
    assert seen[True][0] == seen[False][0]
    assert seen[True][1] < seen[False][1] / 4
    assert (seen[True][2], seen[False][2]) == ([DEINTERLACED], [KEPT])
    assert probe(path).conversions == ("deinterlaced by bwdif",)


def test_a_field_that_is_deinterlaced_shows_the_moment_of_the_first(tmp_path: Path) -> None:
    frames = [woven(2 * index, top_first=True) for index in range(10)]
    path = write(tmp_path / "clip.mpg", frames, top_first=True, times=list(range(10)))
    for index, (_, frame) in enumerate(FrameReader(path)):
        assert np.abs(frame[8:-8].astype(int) - bar(2 * index)[8:-8]).mean() < 6


def test_progressive_frames_are_not_changed(tmp_path: Path) -> None:
    path = write(
        tmp_path / "clip.mpg", [bar(index) for index in range(6)], top_first=True, times=[*range(6)], flagged=False
    )
    notes = Notes()
    frames = [frame for _, frame in FrameReader(path, notes=notes)]
    for frame, same in zip(frames, (frame for _, frame in FrameReader(path, deinterlace=False)), strict=True):
        np.testing.assert_array_equal(frame, same)
    assert notes.lines == []
    assert probe(path).conversions == ()
