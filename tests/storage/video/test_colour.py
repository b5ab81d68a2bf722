from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from storage.video import choose_encoding, probe, read_frames, write_video

COLOURS = [(220, 40, 40), (40, 200, 60), (30, 60, 210), (230, 220, 40), (128, 128, 128)]
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)
"""The weights of red and blue in luma."""
UNTAGGED, AS_709, AS_601, AS_2020 = 2, 1, 6, 9
FlatFrames = Callable[..., list[npt.NDArray[np.uint8]]]
MakeClip = Callable[..., Path]


def yuv_of(colour: tuple[int, int, int], weights: tuple[float, float], *, full: bool) -> tuple[int, int, int]:
    """Return Y, Cb and Cr of a colour, as ITU-R BT.601, 709 and 2020 define them."""
    red, green, blue = (value / 255 for value in colour)
    red_weight, blue_weight = weights
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    chroma = ((blue - luma) / (2 - 2 * blue_weight), (red - luma) / (2 - 2 * red_weight))
    if full:
        return round(255 * luma), round(128 + 255 * chroma[0]), round(128 + 255 * chroma[1])
    return round(16 + 219 * luma), round(128 + 224 * chroma[0]), round(128 + 224 * chroma[1])


def write_yuv(
    path: Path,
    pictures: list[tuple[int, int, int]],
    *,
    height: int,
    codec: str,
    pix_fmt: str,
    tag: int,
    tag_range: int,
    width: int = 64,
) -> Path:
    """Write a clip of flat pictures with exactly these code values."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options={"crf": "1"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, tag_range
        for index, codes in enumerate(pictures):
            planes = np.full((3, height, width), np.array(codes)[:, None, None], np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
            frame.colorspace, frame.color_range = tag, tag_range
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p10le"])
@pytest.mark.parametrize(
    ("weights", "tag", "height"),
    [(BT709, AS_709, 48), (BT601, AS_601, 720), (BT2020, AS_2020, 48), (BT601, UNTAGGED, 48), (BT709, UNTAGGED, 720)],
)
@pytest.mark.parametrize(("codec", "name"), [("libx264", "clip.mp4"), ("ffv1", "clip.mkv")])
def test_colours_follow_the_matrix_and_range_that_the_stream_declares(
    codec: str,
    name: str,
    weights: tuple[float, float],
    tag: int,
    height: int,
    pix_fmt: str,
    full: bool,
    tmp_path: Path,
) -> None:
    pictures = [yuv_of(colour, weights, full=full) for colour in COLOURS]
    path = write_yuv(
        tmp_path / name, pictures, height=height, codec=codec, pix_fmt=pix_fmt, tag=tag, tag_range=2 if full else 1
    )
    for (_, frame), colour in zip(read_frames(path), COLOURS, strict=True):
        assert np.abs(frame.astype(int) - colour).max() <= 3


def test_an_untagged_range_is_read_as_limited(tmp_path: Path) -> None:
    pictures = [yuv_of(colour, BT601, full=False) for colour in COLOURS]
    path = write_yuv(
        tmp_path / "clip.mp4", pictures, height=48, codec="libx264", pix_fmt="yuv420p", tag=UNTAGGED, tag_range=0
    )
    for (_, frame), colour in zip(read_frames(path), COLOURS, strict=True):
        assert np.abs(frame.astype(int) - colour).max() <= 3


@pytest.mark.parametrize(("codec", "name", "pix_fmt"), [("png", "clip.png", "rgb24"), ("ffv1", "clip.mkv", "bgr0")])
def test_rgb_sources_are_read_unchanged(
    codec: str, name: str, pix_fmt: str, make_clip: MakeClip, flat_frames: FlatFrames
) -> None:
    for colour in COLOURS:
        path = make_clip(flat_frames(colour), codec=codec, name=name, pix_fmt=pix_fmt)
        ((_, frame),) = read_frames(path)
        assert np.abs(frame.astype(int) - colour).max() == 0


def test_transparency_is_dropped_and_the_colour_below_it_kept(tmp_path: Path) -> None:
    image = np.full((48, 64, 4), (220, 40, 40, 90), np.uint8)
    with av.open(str(tmp_path / "clip.mov"), "w") as container:
        stream: Any = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba")))
        container.mux(stream.encode(None))
    ((_, frame),) = read_frames(tmp_path / "clip.mov")
    np.testing.assert_array_equal(frame, image[..., :3])


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le"])
@pytest.mark.parametrize("full", [False, True])
def test_a_grey_source_is_grey_in_all_channels(full: bool, pix_fmt: str, tmp_path: Path) -> None:
    levels = (10, 128, 200)
    pictures = [yuv_of((level, level, level), BT601, full=full) for level in levels]
    path = write_yuv(
        tmp_path / "clip.mkv",
        pictures,
        height=48,
        codec="ffv1",
        pix_fmt=pix_fmt,
        tag=UNTAGGED,
        tag_range=2 if full else 1,
    )
    for (_, frame), level in zip(read_frames(path), levels, strict=True):
        assert np.abs(frame.astype(int) - level).max() <= 2


@pytest.mark.parametrize(
    ("width", "height", "weights"),
    [(1280, 544, BT709), (1278, 576, BT601), (64, 578, BT709), (720, 576, BT601), (1920, 48, BT709)],
)
def test_the_matrix_that_is_not_declared_follows_width_and_height(
    width: int, height: int, weights: tuple[float, float], tmp_path: Path
) -> None:
    codes = [yuv_of(colour, weights, full=False) for colour in COLOURS]
    kind = {"codec": "ffv1", "pix_fmt": "yuv420p", "tag": UNTAGGED, "tag_range": 1}
    path = write_yuv(tmp_path / "clip.mkv", codes, height=height, width=width, **kind)  # type: ignore[arg-type]
    for (_, frame), colour in zip(read_frames(path), COLOURS, strict=True):
        assert np.abs(frame.mean(axis=(0, 1)) - colour).max() <= 2
    differs = weights == BT709 and height < 720  # where an earlier version read BT.601
    assert probe(path).conversions == (("BT.709 by size",) if differs else ())


# --- where chroma is sampled ---------------------------------------------------------------------------------------

X264_POSITIONS = {"left": 0, "center": 1, "topleft": 2, "top": 3, "bottomleft": 4, "bottom": 5}
# Pixels from the middle of two by two pixels, down and right, at which their chroma is sampled
OFFSETS = {"left": (0, -0.5), "center": (0, 0), "topleft": (-0.5, -0.5), "top": (-0.5, 0), "bottomleft": (0.5, -0.5)}


def wave(shift: float) -> npt.NDArray[np.float64]:
    """Return two periods of a wave over 64 pixels, moved to the right."""
    return np.sin(2 * np.pi * 2 * (np.arange(64) - shift) / 64)


def shift_of(line: npt.NDArray[np.float64]) -> float:
    """Return by how many pixels a line is a wave that is moved to the right."""
    angle = np.angle(np.exp(-2j * np.pi * 2 * np.arange(64) / 64) @ line)
    return float(((-np.pi / 2 - angle + np.pi) % (2 * np.pi) - np.pi) * 64 / (2 * np.pi * 2))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("position", OFFSETS)
def test_the_position_of_chroma_that_a_file_declares_is_followed(position: str, axis: int, tmp_path: Path) -> None:
    """Chroma planes are a wave as sampled at the position, so that the pixels are the wave itself."""
    places = 2 * np.arange(32) + 0.5 + OFFSETS[position][axis]
    line = (128 + 50 * np.sin(2 * np.pi * 2 * places / 64)).round().astype(np.uint8)
    plane = np.broadcast_to(line[:, None] if axis == 0 else line, (32, 32))
    planes = [np.full((64, 64), 128, np.uint8), np.full((32, 32), 128, np.uint8), plane]
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as target:
        options = {"crf": "1", "bf": "0", "x264-params": f"chromaloc={X264_POSITIONS[position]}"}
        stream: Any = target.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stacked = np.concatenate([each.ravel() for each in planes]).reshape(96, 64)
        target.mux(stream.encode(av.VideoFrame.from_ndarray(stacked, format="yuv420p")))
        target.mux(stream.encode(None))
    ((_, frame),) = read_frames(path)
    assert shift_of(frame[..., 0].mean(axis=1 - axis)) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("container", "codec", "pixel_format"),
    [
        ("mp4", "h264", "yuv420p"),
        ("mp4", "h264", "yuv420p10le"),
        ("mp4", "h264", "yuv444p"),
        ("mkv", "hevc", "yuv420p"),
        ("mp4", "av1", "yuv420p"),
        ("webm", "vp9", "yuv420p"),
        ("mov", "prores", "yuv422p10le"),
    ],
)
def test_colours_stay_where_they_are_in_every_format(
    container: str, codec: str, pixel_format: str, axis: int, tmp_path: Path
) -> None:
    line = 128 + 50 * wave(0)
    red = np.broadcast_to(line[:, None] if axis == 0 else line, (64, 64))
    # Of one luma: what moves is chroma
    picture = np.stack([red, 128 - 0.2126 / 0.7152 * (red - 128), np.full_like(red, 128)], axis=-1)
    path = tmp_path / f"clip.{container}"
    encoding = choose_encoding(container, codec=codec, pixel_format=pixel_format)
    write_video(
        path,
        [picture.round().astype(np.uint8)] * 2,
        timestamps=range(2),
        time_base=Fraction(1, 25),
        encoding=encoding,
    )
    frame = next(read_frames(path))[1].astype(np.float64)
    assert shift_of((frame[..., 0] - frame[..., 1]).mean(axis=1 - axis)) == pytest.approx(0, abs=0.1)
