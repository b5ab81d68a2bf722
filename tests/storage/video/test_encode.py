from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import VideoError
from storage.video import probe, read_frames, write_video

Image = npt.NDArray[np.uint8]
FlatFrames = Callable[..., list[Image]]
GREY = (90, 90, 90)
ROOT = Path(__file__).parents[3]

WRITER = """
import sys
from fractions import Fraction
import numpy as np
from storage.video import write_video
noise = np.random.default_rng(0).integers(0, 256, (320, 800, 3), dtype=np.uint8)
frames = [noise[index:][:288, 2 * index:][:, :780] for index in range(6)]
write_video(sys.argv[1], frames, timestamps=range(6), time_base=Fraction(1, 25))
"""


def times_of(path: Path) -> list[Fraction]:
    time_base = probe(path).time_base
    return [time * time_base for time, _ in read_frames(path)]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.integers(1, 5000), min_size=1, max_size=12),
    start=st.integers(0, 2000),
    time_base=st.sampled_from([Fraction(1, 25), Fraction(1001, 30000), Fraction(1, 90000), Fraction(1, 1000)]),
)
def test_timestamps_and_duration_are_stored_exactly(
    steps: list[int], start: int, time_base: Fraction, tmp_path: Path
) -> None:
    times = [start + sum(steps[:index]) for index in range(len(steps))]
    path = tmp_path / "out.mp4"
    frames = [np.full((32, 32, 3), 10 * index, np.uint8) for index in range(len(times))]
    write_video(path, frames, timestamps=times, time_base=time_base, last_duration=steps[-1])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        assert stream.duration * stream.time_base == sum(steps) * time_base
        stored = [frame.pts * stream.time_base for frame in container.decode(stream) if frame.pts is not None]
    assert stored == [time * time_base for time in times]


@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (13, 77, 199)]
)
@pytest.mark.parametrize("size", [(48, 64), (720, 64)])
def test_a_colour_is_the_same_after_writing_and_reading(
    colour: tuple[int, int, int], size: tuple[int, int], flat_frames: FlatFrames, tmp_path: Path
) -> None:
    frames = flat_frames(colour, colour, size=size)
    write_video(tmp_path / "out.mp4", frames, timestamps=[0, 1], time_base=Fraction(1, 25))
    for _, frame in read_frames(tmp_path / "out.mp4"):
        assert np.abs(frame.astype(int) - colour).max() <= 3


def test_the_file_declares_its_colours(flat_frames: FlatFrames, tmp_path: Path) -> None:
    write_video(tmp_path / "out.mp4", flat_frames(GREY), timestamps=[0], time_base=Fraction(1, 25))
    with av.open(str(tmp_path / "out.mp4")) as container:
        codec = container.streams.video[0].codec_context
        tags = (codec.pix_fmt, codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc)
    assert tags == ("yuv420p", 1, 1, 1, 1)


def test_the_bytes_depend_on_the_input_alone(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, noise, timestamps=range(6), time_base=Fraction(1, 25))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_the_bytes_are_the_same_whatever_the_memory_of_the_process_contained(tmp_path: Path) -> None:
    files = set()
    for fill in ("0", "1", "2", "200"):  # glibc fills new memory with a byte that follows from this number
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_PERTURB_": fill}
        subprocess.run([sys.executable, "-c", WRITER, tmp_path / "out.mp4"], env=environment, check=True)
        files.add((tmp_path / "out.mp4").read_bytes())
    assert len(files) == 1


def test_the_encoder_runs_without_its_macroblock_tree(flat_frames: FlatFrames, tmp_path: Path) -> None:
    write_video(tmp_path / "out.mp4", flat_frames(GREY), timestamps=[0], time_base=Fraction(1, 25))
    assert b" mbtree=0 " in (tmp_path / "out.mp4").read_bytes()  # x264 writes its options into the stream


@pytest.mark.parametrize("size", [(47, 64), (48, 63), (47, 63), (1, 1)])
def test_an_odd_side_is_made_even_by_repeating_its_last_row_or_column(
    size: tuple[int, int], flat_frames: FlatFrames, tmp_path: Path
) -> None:
    write_video(tmp_path / "out.mp4", flat_frames(GREY, size=size), timestamps=[0], time_base=Fraction(1, 25))
    ((_, frame),) = read_frames(tmp_path / "out.mp4")
    assert frame.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert np.abs(frame.astype(int) - 90).max() <= 3


def test_a_detailed_picture_is_stored_with_a_small_error(tmp_path: Path) -> None:
    y, x = np.mgrid[:96, :128]
    image = np.stack([x * 2, y * 2, (np.sin(x / 9) + 1) * 127], axis=-1).astype(np.uint8)
    write_video(tmp_path / "out.mp4", [image] * 3, timestamps=[0, 1, 2], time_base=Fraction(1, 25))
    for _, frame in read_frames(tmp_path / "out.mp4"):
        assert np.abs(frame.astype(int) - image).mean() < 3


def test_the_aspect_ratio_of_pixels_is_stored(flat_frames: FlatFrames, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    write_video(path, flat_frames(GREY), timestamps=[0], time_base=Fraction(1, 25), pixel_aspect=Fraction(128, 117))
    assert probe(path).pixel_aspect == Fraction(128, 117)


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".m4v", ".MP4"])
def test_other_containers_can_be_written(suffix: str, flat_frames: FlatFrames, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    write_video(path, flat_frames(GREY, GREY), timestamps=[0, 3], time_base=Fraction(1, 25))
    assert times_of(path) == [0, Fraction(3, 25)]


def test_frames_are_taken_one_at_a_time(flat_frames: FlatFrames, tmp_path: Path) -> None:
    alive: list[int] = []

    def frames() -> Iterator[Image]:
        for index in range(5):
            alive.append(index)
            yield flat_frames((index, index, index))[0]

    write_video(tmp_path / "out.mp4", frames(), timestamps=range(5), time_base=Fraction(1, 25))
    assert alive == [0, 1, 2, 3, 4]


def test_a_failure_leaves_the_old_file_and_no_temporary_one(flat_frames: FlatFrames, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"old")

    def frames() -> Iterator[Image]:
        yield from flat_frames(GREY, GREY)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_video(tmp_path / "out.mp4", frames(), timestamps=range(5), time_base=Fraction(1, 25))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("out.mp4", b"old")]


@pytest.mark.parametrize(
    ("count", "times", "reason"),
    [
        (0, [], "no frames"),
        (0, [0], "no frames"),
        (2, [0], "more frames than the 1"),
        (2, [0, 1, 2], "2 frames for 3"),
        (2, [0, 0], "strictly increase"),
        (2, [1, 0], "strictly increase"),
    ],
)
def test_frames_and_timestamps_must_match(
    count: int, times: list[int], reason: str, flat_frames: FlatFrames, tmp_path: Path
) -> None:
    with pytest.raises(VideoError, match=reason):
        write_video(tmp_path / "out.mp4", flat_frames(*[GREY] * count), timestamps=times, time_base=Fraction(1, 25))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "frames",
    [
        [np.zeros((8, 8), np.uint8)],
        [np.zeros((8, 8, 4), np.uint8)],
        [np.zeros((8, 8, 3), np.float32)],
        [np.zeros((0, 8, 3), np.uint8)],
        [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 6, 3), np.uint8)],
    ],
)
def test_an_invalid_frame_is_refused(frames: list[Image], tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="uint8 RGB"):
        write_video(tmp_path / "out.mp4", frames, timestamps=range(len(frames)), time_base=Fraction(1, 25))


@pytest.mark.parametrize("name", ["out.webm", "out", "out.gif", "/proc/wave/out.mp4"])
def test_a_path_that_cannot_be_written_is_refused(name: str, flat_frames: FlatFrames, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot write"):
        write_video(tmp_path / name, flat_frames(GREY), timestamps=[0], time_base=Fraction(1, 25))


def test_a_folder_at_the_path_is_refused(flat_frames: FlatFrames, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").mkdir()
    with pytest.raises(VideoError, match="is a folder"):
        write_video(tmp_path / "out.mp4", flat_frames(GREY), timestamps=[0], time_base=Fraction(1, 25))
