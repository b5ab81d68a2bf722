from __future__ import annotations

import resource
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from storage.errors import VideoError
from storage.limits import Limits, using_limits
from storage.video import FrameReader, Notes, Trim, pack_pictures, probe, read_frames
from storage.video._source import origin

FlatFrames = Callable[..., list[npt.NDArray[np.uint8]]]
MakeClip = Callable[..., Path]
ORIENTATION, MAKER = 0x0112, 0x010F  # EXIF tags


def quarters() -> npt.NDArray[np.uint8]:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32], image[:24, 32:], image[24:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return image


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[ORIENTATION], data[MAKER] = orientation, "Camera"
    return data


# --- side data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"),
    [("jpg", {"quality": 95, "subsampling": 0}), ("png", {}), ("tiff", {}), ("webp", {"lossless": True})],
)
def test_a_photograph_with_exif_is_read_upright(
    suffix: str, options: dict[str, Any], orientation: int, tmp_path: Path
) -> None:
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(quarters()).save(path, exif=exif(orientation), **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    ((_, frame),) = read_frames(path)
    info = probe(path)
    assert frame.shape == upright.shape == (info.height, info.width, 3)
    assert np.abs(frame.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("name", ["clip.avi", "clip.mov", "clip.mkv"])
def test_frames_of_a_video_that_carry_exif_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for index in range(6):
            Image.fromarray(quarters()).save(tmp_path / "frame.jpg", exif=exif(6))
            packet = av.Packet((tmp_path / "frame.jpg").read_bytes())
            packet.pts = packet.dts = index
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, True
            container.mux(packet)
    notes = Notes()
    frames = [frame for _, frame in FrameReader(path, notes=notes)]
    assert [frame.shape for frame in frames] == 6 * [(64, 48, 3)]
    assert notes.lines == []


# --- the part of pictures that is shown ----------------------------------------------------------------------------


def cropped_matroska(path: Path, *, top: int, bottom: int, left: int, right: int) -> None:
    """Replace the description of a video's colours in its header by a crop."""
    data = path.read_bytes()
    start = data.index(bytes.fromhex("55b090"))
    crop = bytes.fromhex(f"54bb81{top:02x}54aa81{bottom:02x}54cc81{left:02x}54dd81{right:02x}ec8100")
    assert len(crop) == 3 + 0x10
    path.write_bytes(data[:start] + crop + data[start + len(crop) :])


def cropped_mp4(path: Path, *, size: tuple[int, int], offset: tuple[int, int]) -> None:
    """Add a clean aperture: its size (height, width), and its centre from that of the picture, down and right."""
    data = path.read_bytes()
    pairs = ((size[1], 1), (size[0], 1), (offset[1], 1), (offset[0], 1))
    box = struct.pack(">I4s", 40, b"clap") + b"".join(struct.pack(">ii", *pair) for pair in pairs)
    entry = data.index(b"avc1", data.index(b"stsd"))
    end = entry - 4 + struct.unpack(">I", data[entry - 4 : entry])[0]
    data = data[:end] + box + data[end:]
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        place = entry if name == b"avc1" else data.index(name)
        (length,) = struct.unpack(">I", data[place - 4 : place])
        data = data[: place - 4] + struct.pack(">I", length + len(box)) + data[place:]
    path.write_bytes(data)


def test_the_crop_of_a_matroska_file_is_applied(make_clip: MakeClip) -> None:
    colours = {"color_primaries": "bt709", "color_trc": "bt709"}
    path = make_clip([quarters()] * 3, name="clip.mkv", matrix=1, options=colours)
    whole = next(read_frames(path))[1]
    cropped_matroska(path, top=16, bottom=8, left=3, right=9)
    info = probe(path)
    assert (info.height, info.width) == (24, 52)
    frames = [frame for _, frame in read_frames(path)]
    assert len(frames) == 3
    np.testing.assert_array_equal(frames[0], whole[16:40, 3:55])


def test_the_clean_aperture_of_an_mp4_file_is_applied(make_clip: MakeClip) -> None:
    path = make_clip([quarters()] * 3)
    whole = next(read_frames(path))[1]
    cropped_mp4(path, size=(32, 48), offset=(4, -2))
    assert (probe(path).height, probe(path).width) == (32, 48)
    np.testing.assert_array_equal(next(read_frames(path))[1], whole[12:44, 6:54])


def test_pictures_of_another_size_are_fitted_in_with_black_borders(tmp_path: Path) -> None:
    path, notes = tmp_path / "clip.mjpeg", Notes()
    sizes = [(64, 96), (64, 96), (64, 48), (64, 48), (16, 48)]
    data = b""
    for height, width in sizes:
        Image.new("RGB", (width, height), (200, 200, 200)).save(tmp_path / "frame.jpg")
        data += (tmp_path / "frame.jpg").read_bytes()
    path.write_bytes(data)
    frames = [frame for _, frame in FrameReader(path, notes=notes)]
    assert {frame.shape for frame in frames} == {(64, 96, 3)}
    bright = [(frame.min(axis=2) > 150).nonzero() for frame in frames]
    extents = [(rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) for rows, columns in bright]
    assert extents == [(0, 64, 0, 96), (0, 64, 0, 96), (0, 64, 24, 72), (0, 64, 24, 72), (16, 48, 0, 96)]
    assert frames[2][:, :20].max() == 0
    assert notes.lines == [
        "From frame 2 on pictures are 48x64: fitted in with black borders.",
        "From frame 4 on pictures are 48x16: fitted in with black borders.",
    ]


def test_times_begin_at_the_first_frame_where_the_file_says_a_later_start() -> None:
    late, first = (
        SimpleNamespace(start_time=14, time_base=Fraction(1, 25)),
        SimpleNamespace(pts=2, time_base=Fraction(1, 25)),
    )
    container = SimpleNamespace(streams=SimpleNamespace(video=[late], audio=[]))
    assert origin(container, first, Fraction(0)) == Fraction(2, 25)
    assert origin(container, SimpleNamespace(pts=14, time_base=Fraction(1, 25)), Fraction(0)) == Fraction(14, 25)


# --- limits --------------------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def gif_header(width: int, height: int) -> bytes:
    colours = b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    image = b"," + struct.pack("<HHHH", 0, 0, 10, 10) + b"\0\x02\x02\x44\x01\0;"
    return b"GIF89a" + struct.pack("<HH", width, height) + colours + image


@pytest.mark.parametrize("size", [(6000, 6000), (60000, 60000)])
@pytest.mark.parametrize(("name", "content"), [("huge.png", png_header), ("huge.gif", gif_header)])
def test_huge_pictures_are_refused_before_they_are_allocated(
    name: str, content: Callable[[int, int], bytes], size: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content(*size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (probe, lambda path: list(read_frames(path))):
        with pytest.raises(VideoError, match=r"huge\.... has pictures of .*, and at most 33,554,432 pixels are read"):
            read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


def test_what_exceeds_a_limit_is_refused_and_what_reaches_it_is_read(make_clip: MakeClip) -> None:
    path = make_clip([quarters()] * 10)
    exact = Limits(pixels=64 * 48, seconds=0.36, frames=10, file_bytes=path.stat().st_size)
    with using_limits(exact):
        assert len(list(read_frames(path))) == 10
    for change, words in (
        ({"pixels": 64 * 48 - 1}, "has pictures of 64x48, and at most 3,071 pixels are read"),
        ({"seconds": 0.35}, "lasts 0 s or more.*raise WAVE_MAX_SECONDS"),
        ({"frames": 9}, "has 10 frames or more, and at most 9 are read: choose a part.*or raise WAVE_MAX_FRAMES"),
        ({"file_bytes": exact.file_bytes - 1}, "bytes, and at most .* are read: cut it, or raise WAVE_MAX_BYTES"),
    ):
        with using_limits(replace(exact, **change)), pytest.raises(VideoError, match=words):
            list(read_frames(path))
    with using_limits(replace(exact, frames=4)):
        assert len(list(FrameReader(path, trim=Trim(first=3, stop=7)))) == 4


# --- what is left out ----------------------------------------------------------------------------------------------


def test_an_ordinary_video_has_no_notes(make_clip: MakeClip) -> None:
    notes = Notes()
    assert len(list(FrameReader(make_clip([quarters()] * 3, tones=[440.0]), notes=notes))) == 3
    assert notes.lines == []
    assert probe(make_clip([quarters()] * 3)).conversions == ()


def test_subtitles_chapters_attachments_and_other_videos_are_noted(tmp_path: Path, flat_frames: FlatFrames) -> None:
    path, notes = tmp_path / "clip.mkv", Notes()
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        container.add_attachment("font.ttf", "application/x-truetype-font", b"letters")
        container.set_chapters(
            [{"id": index, "start": index, "end": index + 1, "time_base": 1, "metadata": {}} for index in range(2)]
        )
        for index, image in enumerate(flat_frames((9, 9, 9), (99, 99, 99))):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = index
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    assert len(list(FrameReader(path, notes=notes))) == 2
    assert notes.lines == [
        "1 other video track is not kept.",
        "1 attached file is not kept.",
        "2 chapter marks are not kept.",
    ]


@pytest.mark.parametrize(("alpha", "noted"), [(128, True), (255, False)])
@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_transparency_is_noted_where_there_is_any(suffix: str, alpha: int, noted: bool, tmp_path: Path) -> None:
    path, notes = tmp_path / f"picture.{suffix}", Notes()
    Image.new("RGBA", (64, 48), (90, 120, 30, alpha)).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert len(list(FrameReader(path, notes=notes))) == 1
    assert ("Transparency is not kept: the colours below it are shown." in notes.lines) == noted


@pytest.mark.parametrize(("content", "noted"), [(b"... Display P3 ...", True), (b"... sRGB IEC61966-2.1 ...", False)])
def test_a_colour_profile_that_is_not_applied_is_noted(content: bytes, noted: bool, tmp_path: Path) -> None:
    path, notes = tmp_path / "photo.jpg", Notes()
    profile = bytearray(128) + content
    profile[:4], profile[36:40] = len(profile).to_bytes(4, "big"), b"acsp"
    Image.fromarray(quarters()).save(path, icc_profile=bytes(profile))
    assert len(list(FrameReader(path, notes=notes))) == 1
    line = "The picture's ICC colour profile is not applied: its colours are read as sRGB."
    assert notes.lines == ([line] if noted else [])


def test_marks_that_are_attached_to_a_frame_are_noted() -> None:
    notes = Notes()
    notes.marks_left_out({"A53_CC": b"", "STEREO3D": b"", "DISPLAYMATRIX": b""})
    assert notes.lines == ["Closed captions are not kept.", "The mark of a stereoscopic video is not kept."]


def test_more_than_8_bits_are_noted(make_clip: MakeClip) -> None:
    path, notes = make_clip([quarters()] * 2, name="clip.mkv", codec="ffv1", pix_fmt="yuv420p10le"), Notes()
    assert len(list(FrameReader(path, notes=notes))) == 2
    assert notes.lines == ["Colours of 10 bits became 8 bits."]


@pytest.mark.parametrize("name", ["clip.png", "clip.gif"])
def test_each_frame_of_an_animation_lasts_as_long_as_it_says(
    name: str, flat_frames: FlatFrames, tmp_path: Path
) -> None:
    path = tmp_path / name
    first, *others = [Image.fromarray(image) for image in flat_frames((20, 20, 20), (120, 120, 120), (220, 220, 220))]
    first.save(path, save_all=True, append_images=others, duration=[100, 200, 500], loop=0)
    reader, time_base = FrameReader(path), probe(path).time_base
    assert [float(time * time_base) for time, _ in reader] == pytest.approx([0, 0.1, 0.3])
    assert float(reader.last_duration * time_base) == pytest.approx(0.5)


@pytest.mark.parametrize("alpha", [255, 99])
def test_an_animated_webp_is_read_with_its_durations_and_its_transparency_noted(alpha: int, tmp_path: Path) -> None:
    path, notes = tmp_path / "clip.webp", Notes()
    first, *others = [Image.new("RGBA", (64, 48), (level, 90, 30, alpha)) for level in (20, 120, 220)]
    first.save(path, save_all=True, append_images=others, duration=[100, 200, 500], lossless=True)
    reader, time_base = FrameReader(path, notes=notes), probe(path).time_base
    pairs = list(reader)
    assert [float(time * time_base) for time, _ in pairs] == pytest.approx([0, 0.1, 0.3])
    assert float(reader.last_duration * time_base) == pytest.approx(0.5)
    assert [tuple(frame[20, 30]) for _, frame in pairs] == [(level, 90, 30) for level in (20, 120, 220)]
    line = "Transparency is not kept: the colours below it are shown."
    assert notes.lines == ([line] if alpha < 255 else [])
    assert (probe(path).frame_count, probe(path).has_audio) == (3, False)


def test_a_damaged_or_huge_animated_webp_is_refused_in_one_sentence(flat_frames: FlatFrames, tmp_path: Path) -> None:
    path = tmp_path / "clip.webp"
    first, second = [Image.fromarray(image) for image in flat_frames((20, 20, 20), (120, 120, 120))]
    first.save(path, save_all=True, append_images=[second], duration=100)
    with using_limits(Limits(pixels=64 * 48 - 1)), pytest.raises(VideoError, match="has pictures of 64x48"):
        probe(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(VideoError, match=r"clip\.webp is an animated WebP that cannot be read"):
        probe(path)


# --- sequences of pictures -----------------------------------------------------------------------------------------


def test_pictures_become_a_video_without_loss_upright_and_of_one_size(tmp_path: Path) -> None:
    Image.fromarray(quarters()).save(tmp_path / "1.png")
    Image.fromarray(quarters()[::-1]).save(tmp_path / "2.webp", lossless=True)
    Image.fromarray(quarters()).resize((32, 48)).save(tmp_path / "3.bmp")
    sideways = Image.fromarray(quarters().transpose(1, 0, 2)[::-1])
    sideways.save(tmp_path / "4.tiff", exif=exif(6))
    notes, target = Notes(), tmp_path / "out.mov"
    paths = [tmp_path / name for name in ("1.png", "2.webp", "3.bmp", "4.tiff")]
    pack_pictures(paths, target, rate=Fraction(30000, 1001), notes=notes)
    reader = FrameReader(target)
    pairs = list(reader)
    assert [time * probe(target).time_base for time, _ in pairs] == [
        Fraction(1001 * index, 30000) for index in range(4)
    ]
    assert reader.last_duration * probe(target).time_base == Fraction(1001, 30000)
    np.testing.assert_array_equal(pairs[0][1], quarters())
    np.testing.assert_array_equal(pairs[1][1], quarters()[::-1])
    assert pairs[2][1][:, :15].max() == 0
    assert pairs[2][1][10, 24].max() > 200
    np.testing.assert_array_equal(pairs[3][1], quarters())
    assert notes.lines == [
        "From frame 2 on pictures are 32x48: fitted in with black borders.",
        "From frame 3 on pictures are 64x48: fitted in with black borders.",
    ]
    again = tmp_path / "again.mov"
    pack_pictures(paths, again, rate=Fraction(30000, 1001))
    assert again.read_bytes() == target.read_bytes()


def test_an_animation_among_pictures_is_refused(flat_frames: FlatFrames, tmp_path: Path) -> None:
    first, second = [Image.fromarray(image) for image in flat_frames((20, 20, 20), (120, 120, 120))]
    first.save(tmp_path / "1.gif", save_all=True, append_images=[second], duration=100)
    with pytest.raises(VideoError, match=r"1\.gif has several frames: name it alone"):
        pack_pictures([tmp_path / "1.gif"], tmp_path / "out.mov", rate=Fraction(25))
