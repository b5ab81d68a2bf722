from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from storage.errors import VideoError
from storage.video import Extent, FrameReader, check_video_pair, probe, read_audio, write_video

FlatFrames = Callable[..., list[npt.NDArray[np.uint8]]]
MakeClip = Callable[..., Path]
GREYS = [(8 * level, 8 * level, 8 * level) for level in range(1, 31)]


@pytest.fixture
def source(make_clip: MakeClip, flat_frames: FlatFrames) -> Path:
    times = [index + (index > 7) for index in range(30)]
    return make_clip(flat_frames(*GREYS), times=times, tones=[440.0, 880.0])


def edited(source: Path, name: str = "out.mp4", **changes: Any) -> Path:
    """Write the source's frames, times and audio to another file, with something changed."""
    reader = FrameReader(source)
    pairs = list(reader)
    settings = {
        "timestamps": [time for time, _ in pairs],
        "time_base": probe(source).time_base,
        "last_duration": reader.last_duration,
        "audio": read_audio(source),
    }
    frames = changes.pop("frames", [frame for _, frame in pairs])
    target = source.with_name(name)
    write_video(target, frames, **(settings | changes))
    return target


def failed(source: Path, output: Path) -> list[str]:
    checks, _ = check_video_pair(source, output)
    assert len({check.name for check in checks}) == len(checks)
    return [check.name for check in checks if not check.passed]


def test_an_edit_like_its_source_passes_all_checks(source: Path) -> None:
    checks, notes = check_video_pair(source, edited(source))
    assert [check.name for check in checks if not check.passed] == []
    assert [check.name for check in checks] == [
        *("frames", "timestamps", "duration", "size", "aspect", "rotation", "colour tags", "audio tracks"),
        *("audio 1 packets", "audio 1 sync", "audio 2 packets", "audio 2 sync"),
    ]
    assert notes == []


def test_all_times_may_be_later_in_matroska_where_audio_begins_before_zero(source: Path) -> None:
    with av.open(str(source)) as container:
        assert next(container.demux(audio=0)).pts < 0
    assert failed(source, edited(source, "out.mkv")) == []
    times = [time + 200 for time, _ in FrameReader(source)]  # 16 ms
    assert "audio 1 sync" in failed(source, edited(source, "late.mkv", timestamps=times))


def shifted(data: bytes, seconds: Fraction) -> bytes:
    """Write audio again, later."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as before, av.open(buffer, "w", format="mp4") as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams.audio}
        for index, stream in streams.items():
            stream.metadata.update(before.streams[index].metadata)
        for packet in before.demux():
            if packet.size:
                packet.pts += round(seconds / packet.time_base)
                packet.dts, packet.stream = packet.pts, streams[packet.stream_index]
                after.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda _, times: {"timestamps": [*times[:-1], times[-1] + 1]}, ["timestamps", "duration"]),
        (lambda _, times: {"timestamps": [*times[:4], times[4] + 1, *times[5:]]}, ["timestamps"]),
        (lambda _, times: {"last_duration": 5000}, ["duration"]),
        (lambda _, times: {"frames": 30 * [np.zeros((48, 66, 3), np.uint8)]}, ["size"]),
        (lambda _, times: {"pixel_aspect": Fraction(4, 3)}, ["aspect"]),
        (lambda _, times: {"audio": None}, ["audio tracks"]),
        (
            lambda path, _: {"audio": read_audio(path, extent=Extent(end=Fraction(1, 2), is_cut=True))},
            ["audio 1 packets", "audio 2 packets"],
        ),
        (
            lambda path, _: {"audio": shifted(read_audio(path) or b"", Fraction(1, 100))},
            ["audio 1 sync", "audio 2 sync"],
        ),
        (
            lambda _, times: {"timestamps": times[:-1], "frames": 29 * [np.zeros((48, 64, 3), np.uint8)]},
            ["frames", "timestamps", "duration"],
        ),
    ],
)
def test_what_differs_fails_its_check(
    change: Callable[[Path, list[int]], dict[str, Any]], found: list[str], source: Path
) -> None:
    times = [time for time, _ in FrameReader(source)]
    assert failed(source, edited(source, **change(source, times))) == found


def test_colours_without_tags_and_a_rotation_fail(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*GREYS[:3]))
    good = edited(path)
    assert failed(path, good) == []
    assert failed(good, path) == ["colour tags"]
    turned = good.read_bytes()
    place = turned.index(b"tkhd") + 44
    half_turn = b"".join(value.to_bytes(4, "big", signed=True) for value in (-65536, 0, 0, 0, -65536))
    good.write_bytes(turned[:place] + half_turn + turned[place + 20 :])
    assert failed(path, good) == ["rotation"]


def masked(source: Path, size: tuple[int, int] = (48, 64)) -> Path:
    """Write a mask of the left half."""
    image = np.zeros((*size, 3), np.uint8)
    image[:, : size[1] // 2] = 255
    path = source.with_name("mask.png")
    Image.fromarray(image).save(path)
    return path


def outside(source: Path, output: Path, mask: Path) -> tuple[bool, str]:
    checks, _ = check_video_pair(source, output, mask=mask)
    return checks[-1].passed, checks[-1].output


def test_pixels_outside_of_a_mask_are_compared_and_those_inside_are_not(source: Path) -> None:
    frames = [frame for _, frame in FrameReader(source)]
    inside, beyond = ([frame.copy() for frame in frames] for _ in range(2))
    for one, other in zip(inside, beyond, strict=True):
        one[:, :31] = 255 - one[:, :31]
        other[:12, 40:] = 255 - other[:12, 40:]
    passed, words = outside(source, edited(source, frames=inside), masked(source))
    assert passed
    assert words.endswith("0.00 % of the pixels differ by more than 16 of 255")
    passed, words = outside(source, edited(source, frames=beyond), masked(source))
    assert not passed
    fraction = float(words.split(" dB, ")[1].split(" %")[0]) / 100
    assert fraction == pytest.approx(12 * 24 / (48 * 32), abs=0.03)


def test_a_mask_may_be_a_video_with_a_frame_for_each_frame(source: Path, flat_frames: FlatFrames) -> None:
    frames = [frame.copy() for _, frame in FrameReader(source)]
    frames[7] = 255 - frames[7]
    output = edited(source, frames=frames)
    levels = [[(0, 0, 0)] * 30 for _ in range(2)]
    levels[0][7] = levels[1][8] = (255, 255, 255)
    results = []
    for number, level in enumerate(levels):
        mask = source.with_name(f"mask{number}.mp4")
        write_video(mask, flat_frames(*level), timestamps=range(30), time_base=Fraction(1, 25))
        results.append(outside(source, output, mask)[0])
    assert results == [True, False]


@pytest.mark.parametrize(
    ("size", "words"), [((24, 64), "is 64x24, and .* is 64x48"), (None, "leaves no pixel outside")]
)
def test_a_mask_that_does_not_fit_is_refused(size: tuple[int, int] | None, words: str, source: Path) -> None:
    mask = masked(source, size or (48, 64))
    if size is None:
        Image.new("RGB", (64, 48), "white").save(mask)
    with pytest.raises(VideoError, match=words):
        check_video_pair(source, edited(source), mask=mask)


@pytest.mark.parametrize(("delay", "found"), [(Fraction(0), []), (Fraction(1, 50), ["audio 1 sync"])])
def test_sound_that_was_encoded_again_is_compared_by_ear(
    delay: Fraction, found: list[str], make_clip: MakeClip, flat_frames: FlatFrames
) -> None:
    path = make_clip(flat_frames(*GREYS), name="clip.mkv", tones=[440.0], audio_codec="pcm_u8", audio_start=0.3)
    with_aac = read_audio(edited(path, "aac.mp4")) or b""
    out = edited(path, audio=shifted(with_aac, delay))
    assert failed(path, out) == found


def test_odd_sides_are_compared_as_even_ones(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*GREYS[:3], size=(47, 63)), name="clip.mkv", codec="ffv1", pix_fmt="yuv444p")
    assert failed(path, edited(path)) == []


def test_a_file_that_is_no_video_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="there is no file"):
        check_video_pair(source, tmp_path / "absent.mp4")
