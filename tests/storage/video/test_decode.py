from __future__ import annotations

import errno
import io
import os
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Picture

from storage.errors import VideoError
from storage.video import probe, read_audio, read_frames
from storage.video._timing import Timeline, final_duration

Image = npt.NDArray[np.uint8]
FlatFrames = Callable[..., list[Image]]
MakeClip = Callable[..., Path]
GREYS = [(16 * level, 16 * level, 16 * level) for level in range(1, 15)]
ONE = 1 << 16


def quarters() -> Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = (255, 0, 0)
    image[:24, 32:] = (0, 255, 0)
    image[24:, :32] = (0, 0, 255)
    image[24:, 32:] = 255
    return image


def turned(path: Path, *, a: int, b: int, c: int, d: int) -> Path:
    """Write this display matrix into the clip's track header, and return the clip."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[start : start + 36]) == (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def blank_pictures(path: Path, only: int | None = None) -> None:
    """Zero the bytes of all JPEG pictures in a file, or of one."""
    data = path.read_bytes()
    for index, picture in enumerate(re.finditer(b"\xff\xd8\xff.*?\xff\xd9", data, re.DOTALL)):
        if only in (None, index):
            data = data[: picture.start()] + bytes(len(picture[0])) + data[picture.end() :]
    path.write_bytes(data)


def levels(path: Path) -> list[int]:
    """Return which of GREYS each frame shows, counted from 1."""
    return [round(frame.mean() / 16) for _, frame in read_frames(path)]


# --- contents --------------------------------------------------------------------------------------------------


def test_probe_returns_the_properties_of_the_clip(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    info = probe(make_clip(flat_frames(*GREYS[:6]), tones=[440.0]))
    assert (info.width, info.height, info.frame_count) == (64, 48, 6)
    assert info.rate == Fraction(25)
    assert info.duration == pytest.approx(6 / 25)
    assert info.pixel_aspect == Fraction(1)
    assert info.rotation == 0
    assert info.has_audio


def test_frames_are_read_in_order_with_their_timestamps(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*GREYS), options={"bf": "3"})
    info = probe(path)
    assert [time * info.time_base * 25 for time, _ in read_frames(path)] == list(range(14))
    assert levels(path) == list(range(1, 15))


def test_a_variable_frame_rate_is_read_exactly(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    times = [0, 100, 150, 151, 400, 900]
    path = make_clip(flat_frames(*GREYS[:6]), times=times, time_base=Fraction(1, 600))
    info = probe(path)
    assert [time * info.time_base * 600 for time, _ in read_frames(path)] == times


def test_the_frames_of_a_container_without_a_count_are_counted(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    assert probe(make_clip(flat_frames(*GREYS[:7]), name="clip.mkv")).frame_count == 7


def test_the_start_of_a_recordings_clock_becomes_zero(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*GREYS), name="clip.ts", times=range(250, 264))
    info = probe(path)
    assert [round(time * info.time_base * 25) for time, _ in read_frames(path)] == list(range(14))


def test_video_that_starts_after_the_audio_keeps_its_delay(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*GREYS[:5]), name="clip.mkv", times=[5, 6, 7, 8, 9], tones=[440.0], audio_codec="flac")
    info = probe(path)
    assert [round(time * info.time_base * 25) for time, _ in read_frames(path)] == [5, 6, 7, 8, 9]
    with av.open(io.BytesIO(read_audio(path) or b"")) as audio:
        assert audio.streams.audio[0].start_time == 0


@pytest.mark.parametrize(("codec", "name"), [("mpeg4", "clip.avi"), ("mpeg4", "clip.mp4"), ("libvpx-vp9", "clip.webm")])
def test_other_codecs_and_containers_are_decoded(
    codec: str, name: str, make_clip: MakeClip, flat_frames: FlatFrames
) -> None:
    path = make_clip(flat_frames(*GREYS[:6]), name=name, codec=codec, options={"b": "4000000"})
    times = [time * probe(path).time_base for time, _ in read_frames(path)]
    assert [round(time * 25) for time in times] == list(range(6))
    assert levels(path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("size", [(47, 63), (1, 1), (48, 63)])
def test_odd_sizes_are_read_unchanged(size: tuple[int, int], make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames((200, 30, 30), size=size), name="clip.mkv", codec="ffv1", pix_fmt="yuv444p")
    (_, frame), *_ = read_frames(path)
    assert frame.shape == (*size, 3)
    assert (probe(path).height, probe(path).width) == size


def test_a_still_image_is_a_clip_of_one_frame(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames((10, 200, 30)), name="still.png", codec="png", pix_fmt="rgb24")
    ((time, frame),) = read_frames(path)
    assert time == 0
    np.testing.assert_array_equal(frame, flat_frames((10, 200, 30))[0])
    assert probe(path).frame_count == 1


# --- upright --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "degrees", "upright"),
    [
        ({"a": ONE, "b": 0, "c": 0, "d": ONE}, 0, lambda image: image),
        ({"a": 0, "b": ONE, "c": -ONE, "d": 0}, 90, lambda image: np.rot90(image, -1)),
        ({"a": -ONE, "b": 0, "c": 0, "d": -ONE}, 180, lambda image: np.rot90(image, 2)),
        ({"a": 0, "b": -ONE, "c": ONE, "d": 0}, 270, lambda image: np.rot90(image, 1)),
        ({"a": -ONE, "b": 0, "c": 0, "d": ONE}, 0, lambda image: image[:, ::-1]),
        ({"a": ONE, "b": 0, "c": 0, "d": -ONE}, 0, lambda image: image[::-1]),
        ({"a": 0, "b": ONE, "c": ONE, "d": 0}, 270, lambda image: image.transpose(1, 0, 2)),
    ],
)
def test_frames_are_turned_upright(
    matrix: dict[str, int], degrees: int, upright: Callable[[Image], Image], make_clip: MakeClip
) -> None:
    path = turned(make_clip([quarters()] * 2), **matrix)
    expected = upright(quarters())
    info = probe(path)
    assert info.rotation == degrees
    assert (info.height, info.width) == expected.shape[:2]
    for _, frame in read_frames(path):
        away_from_edges = np.s_[4:20, 4:20]
        for corner in (np.s_[:], np.s_[::-1], np.s_[:, ::-1], np.s_[::-1, ::-1]):
            np.testing.assert_allclose(
                frame[corner][away_from_edges].astype(int), expected[corner][away_from_edges], atol=6
            )


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_damaged_frame_is_left_out_and_the_others_keep_their_times(
    make_clip: MakeClip, flat_frames: FlatFrames
) -> None:
    path = make_clip(flat_frames(*GREYS), name="clip.avi", codec="mjpeg", pix_fmt="yuvj420p", full_range=True)
    blank_pictures(path, only=6)
    assert levels(path) == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14]
    time_base = probe(path).time_base
    assert [time * time_base * 25 for time, _ in read_frames(path)] == [*range(6), *range(7, 14)]


def test_a_file_with_only_damaged_frames_is_refused(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*GREYS), name="clip.avi", codec="mjpeg", pix_fmt="yuvj420p", full_range=True)
    blank_pictures(path)
    for read in (probe, lambda path: list(read_frames(path))):
        with pytest.raises(VideoError, match="has no frame"):
            read(path)


def test_the_frames_of_a_truncated_file_are_read_as_far_as_possible(
    make_clip: MakeClip, flat_frames: FlatFrames
) -> None:
    path = make_clip(flat_frames(*GREYS), name="clip.ts", options={"g": "1"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    seen = levels(path)
    assert 3 <= len(seen) < 14
    assert seen[:3] == [1, 2, 3]


@pytest.mark.parametrize(
    ("stored", "placed"),
    [
        ([0, 10, 20], [0, 10, 20]),
        ([5, 10, 20], [5, 10, 20]),
        ([None, None, None], [0, 10, 20]),
        ([0, None, 20], [0, 10, 20]),
        ([0, 10, 10, 20], [0, 10, 11, 20]),
        ([0, 20, 10, 30], [0, 20, 21, 30]),
        ([0, 300, 310, 0, 10, 20], [0, 300, 310, 320, 330, 340]),
    ],
)
def test_missing_and_decreasing_timestamps_are_repaired(stored: list[int | None], placed: list[int]) -> None:
    timeline = Timeline(Fraction(1, 250), Fraction(25))
    assert [timeline.place(time) for time in stored] == placed


@pytest.mark.parametrize(
    ("times", "own", "expected"),
    [
        ([0, 10, 20], 7, 7),
        ([0, 10, 20, 100, 110], 0, 10),
        ([0], 0, 10),
        ([0], 40, 40),
        ([0, 10, 20], 250 * 601, 10),
        ([0, 10, 20], -3, 10),
    ],
)
def test_the_last_frame_lasts_as_long_as_it_says_or_else_the_median_step(
    times: list[int], own: int, expected: int
) -> None:
    assert final_duration(times, own, time_base=Fraction(1, 250), rate=Fraction(25)) == expected


# --- other files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [probe, lambda path: next(read_frames(path)), read_audio])
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.mp4", None, "there is no file"),
        ("words.txt", b"These are words. " * 50, "not a video"),
        ("words.mp4", b"These are words. " * 50, "not a video"),
        ("empty.mp4", b"", "not a video"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "not a video"),
        ("list.ffconcat", b"ffconcat version 1.0\nfile clip.mp4\n", "not a video"),
    ],
)
def test_a_file_that_is_not_a_video_is_refused_in_one_sentence(
    name: str, content: bytes | None, reason: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=reason) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "is a folder"),
        ("pipe", "is a pipe, a socket or a device"),
        ("loop", "cannot be read .Too many levels of symbolic links."),
        ("nowhere", "there is no file"),
        ("clip.mp4/clip.mp4", "there is no file"),
        (f"{'x' * 300}.mp4", "cannot be read .File name too long."),
        ("two\nlines.mp4", r"there is no file .*two.nlines.mp4$"),
    ],
)
def test_what_is_no_file_is_refused_in_one_sentence(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "clip.mp4").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("absent")
    with pytest.raises(VideoError, match=reason) as caught:
        probe(tmp_path / name)
    assert str(caught.value).isprintable()


def test_a_disk_that_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "clip.mp4").touch()
    monkeypatch.setattr("storage.video._source.is_animated_webp", fails)
    with pytest.raises(VideoError, match=r"clip.mp4 cannot be read .Input/output error"):
        probe(tmp_path / "clip.mp4")


@pytest.mark.parametrize("name", ["a%d.png", "a%03d.png", "a*.png", "a%*.png", "a{1,2}.png", "a[1].png", "-%d.mp4"])
def test_a_name_is_no_pattern_of_names(name: str, tmp_path: Path) -> None:
    for other in ("a1.png", "a001.png", "-1.mp4"):
        Picture.new("RGB", (16, 16), "red").save(tmp_path / other, "PNG")
    Picture.new("RGB", (32, 24), "blue").save(tmp_path / name, "PNG")
    ((_, frame),) = read_frames(tmp_path / name)
    assert frame.shape == (24, 32, 3)
    assert frame[0, 0].tolist() == [0, 0, 255]


def test_audio_alone_is_refused(make_clip: MakeClip, flat_frames: FlatFrames, tmp_path: Path) -> None:
    with av.open(io.BytesIO(read_audio(make_clip(flat_frames(*GREYS), tones=[440.0])) or b"")) as source:
        path = tmp_path / "audio.m4a"
        with av.open(str(path), "w", format="mp4") as target:
            stream = target.add_stream_from_template(source.streams.audio[0])
            for packet in source.demux(source.streams.audio[0]):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    with pytest.raises(VideoError, match="no video stream"):
        probe(path)


def test_a_video_without_frames_is_refused(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*GREYS[:2]), name="clip.mkv", codec="ffv1")
    data = bytearray(path.read_bytes())
    start = data.index(b"\x1f\x43\xb6\x75")  # the first cluster
    path.write_bytes(data[:start])
    with pytest.raises(VideoError, match=r"has no frame|not a video"):
        list(read_frames(path))
    with pytest.raises(VideoError, match=r"has no frame|not a video"):
        probe(path)
