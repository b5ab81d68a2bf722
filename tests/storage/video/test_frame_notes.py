from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from storage.errors import VideoError
from storage.video import FrameReader, Notes
from storage.video._orientation import Orientation
from tests.storage.video.test_tone_mapping import BT709, HLG, IN_709, IN_2020, expected_grey, grey_clip, hlg_code

FlatFrames = Callable[..., list[npt.NDArray[np.uint8]]]
MakeClip = Callable[..., Path]
ONE = 1 << 16
GREYS = [(8 * level,) * 3 for level in range(3, 15)]


def read(path: Path) -> tuple[list[npt.NDArray[np.uint8]], list[str]]:
    notes = Notes()
    return [frame for _, frame in FrameReader(path, notes=notes)], notes.lines


def joined(*paths: Path) -> Path:
    target = paths[0].with_name("joined.ts")
    target.write_bytes(b"".join(path.read_bytes() for path in paths))
    return target


@pytest.mark.parametrize("hdr_first", [True, False])
def test_hdr_in_a_part_of_a_video_is_tone_mapped_there_alone(hdr_first: bool, tmp_path: Path) -> None:
    hdr = grey_clip(tmp_path / "hdr.ts", hlg_code(203), transfer=HLG, primaries=IN_2020, encoder="libx264")
    sdr = grey_clip(tmp_path / "sdr.ts", 0.6, transfer=BT709, primaries=IN_709, matrix=1, encoder="libx264")
    frames, lines = read(joined(hdr, sdr) if hdr_first else joined(sdr, hdr))
    means = [float(frame.mean()) for frame in frames]
    expected = [expected_grey(203), 153] if hdr_first else [153, expected_grey(203)]
    assert [means[0], means[-1]] == pytest.approx(expected, abs=1.5)
    assert sum("HDR (HLG)" in line for line in lines) == 1
    assert lines.count("Colours of 10 bits became 8 bits.") == 1


def test_a_shape_of_pixels_that_changes_is_noted(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    parts = [
        make_clip(flat_frames(*GREYS), name=f"{aspect}.ts", codec="mpeg2video", options={"aspect": aspect})
        for aspect in ("4:3", "16:9")
    ]
    _, lines = read(joined(*parts))
    assert [line for line in lines if "shape of pixels" in line]


@pytest.mark.parametrize(
    ("matrix", "is_rough"),
    [
        ((ONE, 0, 0, ONE), False),
        ((0, ONE, -ONE, 0), False),
        ((2 * ONE, 0, 0, ONE), False),
        ((ONE, ONE // 60, -ONE // 60, ONE), False),
        ((ONE, ONE // 40, -ONE // 40, ONE), True),
        ((ONE, ONE, -ONE, ONE), True),
        ((ONE, ONE // 2, 0, ONE), True),
        ((0, 0, 0, 0), False),
    ],
)
def test_a_display_matrix_that_is_no_quarter_turn_is_rough(matrix: tuple[int, int, int, int], is_rough: bool) -> None:
    a, b, c, d = matrix
    data = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], np.int32).tobytes()
    assert Orientation.is_rough({"DISPLAYMATRIX": data}) is is_rough
    assert not Orientation.is_rough({})


def test_each_picture_of_mjpeg_is_turned_upright_by_itself(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 48))
    image.paste((200, 200, 200), (0, 0, 64, 16))
    path = tmp_path / "clip.mjpeg"
    with path.open("wb") as file:
        for orientation in (1, 3, 6, 1):
            exif = Image.Exif()
            exif[0x112] = orientation
            image.save(file, "JPEG", exif=exif, quality=95)
    frames, lines = read(path)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4
    bright = [np.argwhere(frame.max(axis=2) > 150).mean(axis=0).round() for frame in frames]
    assert bright[0] == pytest.approx(bright[3])
    assert bright[1][0] > 36  # upside down: at the bottom
    assert bright[2][1] > 32  # a quarter turn clockwise: at the right
    assert lines == ["From frame 1 on pictures are rotated otherwise: turned upright and fitted in."]


def test_a_turn_that_the_stream_states_once_is_that_of_all_frames(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    source = make_clip(flat_frames(*GREYS), name="clip.h264")
    data = source.read_bytes()
    start = data.index(b"\0\0\1\x65")  # the first picture
    message = bytes([0, 0, 1, 6, 47, 3, 0x08, 0x00, 0x09, 0x80])  # SEI: display orientation, a quarter turn
    source.write_bytes(data[:start] + message + data[start:])
    frames, lines = read(source)
    assert [frame.shape for frame in frames] == [(64, 48, 3)] * len(GREYS)
    assert lines == []


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ({"colorspace": 8}, "the matrix YCgCo, which is not applied: they are read with BT.601"),
        ({"colorspace": 10}, "BT.2020 with constant luminance, which is not applied: they are read with BT.2020"),
        ({"color_trc": 8}, "the transfer function linear, which is not applied: they are read with that of BT.709"),
        ({"colorspace": 6, "color_trc": 6, "color_primaries": 6}, ""),
    ],
)
def test_colours_that_are_declared_and_not_followed_are_noted(names: dict[str, int], line: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as target:
        stream: Any = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for name, value in names.items():
            setattr(stream.codec_context, name, value)
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
        target.mux([*stream.encode(frame.reformat(format="yuv444p")), *stream.encode(None)])
    _, lines = read(path)
    assert len(lines) == bool(line)
    assert line in "".join(lines)


@pytest.mark.parametrize("encoding", ["ascii", "utf-16-be"])
def test_a_profile_is_known_as_srgb_in_both_encodings_of_its_name(encoding: str) -> None:
    notes = Notes()
    notes.profile_left_out(b"mluc\0\0" + "sRGB built-in".encode(encoding))
    notes.profile_left_out(b"")
    assert notes.lines == []
    notes.profile_left_out(b"mluc\0\0" + "Adobe RGB".encode(encoding))
    assert len(notes.lines) == 1


@pytest.mark.parametrize(("name", "kind"), [("scan.tif", "TIFF"), ("phone.jpg", "MPO")])
def test_further_pictures_of_a_still_are_noted(name: str, kind: str, tmp_path: Path) -> None:
    images = [Image.new("RGB", (64, 48), (value, 90, 90)) for value in (40, 120, 200)]
    images[0].save(tmp_path / name, kind, save_all=True, append_images=images[1:])
    frames, lines = read(tmp_path / name)
    assert [frame[0, 0, 0] for frame in frames] == pytest.approx([40], abs=2)
    assert lines == ["2 further pictures of the file are not kept."]


def test_a_gif_that_is_cut_off_is_noted(tmp_path: Path) -> None:
    images = [Image.new("RGB", (64, 48), (value, 90, 90)) for value in (40, 120, 200)]
    path = tmp_path / "clip.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100)
    data = path.read_bytes()
    assert read(path)[1] == []
    path.write_bytes(data + bytes(100))
    assert read(path)[1] == []
    path.write_bytes(data[: len(data) * 2 // 3])
    assert read(path)[1] == ["The file cannot be read to its end: it is damaged."]


def test_a_tiff_that_is_cut_off_ends_in_no_other_error(tmp_path: Path) -> None:
    images = [Image.new("RGB", (64, 48), (value, 90, 90)) for value in (40, 120)]
    path = tmp_path / "scan.tif"
    images[0].save(path, save_all=True, append_images=images[1:])
    data = path.read_bytes()
    read_at = []
    for cut in (*range(100, len(data), len(data) // 40), *range(len(data) // 2, len(data) // 2 + 200, 7)):
        path.write_bytes(data[:cut])
        with contextlib.suppress(VideoError):
            read_at.append(len(read(path)[0]))
    assert set(read_at) == {1}


def test_short_recordings_that_are_joined_are_shown_one_after_the_other(
    make_clip: MakeClip, flat_frames: FlatFrames
) -> None:
    part = make_clip(flat_frames(*GREYS), name="part.ts")
    notes = Notes()
    times = [time for time, _ in FrameReader(joined(part, part), notes=notes)]
    assert times == [3600 * index for index in range(24)]
    assert notes.lines == []


def test_frames_whose_times_do_not_increase_are_noted(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    source = make_clip(flat_frames(*GREYS), name="clip.mkv")
    path = source.with_name("doubled.mkv")
    with av.open(str(source)) as container, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(container.streams.video[0])
        for packet in container.demux():
            if packet.size:
                packet.pts = packet.dts = packet.pts - (40 if packet.pts == 240 else 0)
                packet.stream = stream
                target.mux(packet)
    frames, lines = read(path)
    assert len(frames) == 12
    assert lines == ["1 frame has a time that does not increase: shown directly after the frame before."]


def test_frames_before_damage_that_ends_a_file_are_shown(tmp_path: Path) -> None:
    images = [Image.fromarray(np.full((48, 64, 3), (value, 60, 60), np.uint8)) for value in (40, 120, 200)]
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG", save_all=True, append_images=images[1:], duration=100)
    data = bytearray(buffer.getvalue())
    data[data.index(b"fcTL", data.index(b"fcTL") + 4) + 16] ^= 0xFF  # the second picture begins outside of the first
    path = tmp_path / "damaged.png"
    path.write_bytes(data)
    frames, lines = read(path)
    assert [int(frame[0, 0, 0]) for frame in frames] == [40]
    assert lines == ["The file cannot be read to its end: it is damaged."]
