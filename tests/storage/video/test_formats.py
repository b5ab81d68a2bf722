from __future__ import annotations

import io
import zipfile
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
from storage.video import (
    CONTAINERS,
    Encoding,
    FrameReader,
    Notes,
    SourceEncoding,
    choose_encoding,
    encoding_like,
    probe,
    read_audio,
    source_encoding,
    write_video,
)

MakeClip = Callable[..., Path]
FlatFrames = Callable[..., list[npt.NDArray[np.uint8]]]
TIMES = [0, 1, 2, 4, 5, 8, 9]
VIDEOS = [
    (container, codec)
    for container, codecs in CONTAINERS.items()
    if container not in ("gif", "png")
    for codec in codecs
]


def drawn(size: tuple[int, int] = (50, 70)) -> list[npt.NDArray[np.uint8]]:
    y, x = np.mgrid[: size[0], : size[1]]
    return [
        np.stack([2 * x + 9 * step, 3 * y + 4 * step, 99 + 60 * np.sin((x + step) / 9)], axis=-1)
        .clip(0, 255)
        .astype(np.uint8)
        for step in range(len(TIMES))
    ]


def encoded(container: str, **choices: Any) -> Encoding:
    try:
        return choose_encoding(container, **choices)
    except VideoError as error:
        if "this installation" in str(error):
            pytest.skip(str(error))
        raise


def written(path: Path, encoding: Encoding, **more: Any) -> list[str]:
    notes = Notes()
    settings = {"frames": drawn(), "timestamps": TIMES, "time_base": Fraction(1, 25), "last_duration": 2, **more}
    write_video(path, **settings, encoding=encoding, notes=notes)
    return notes.lines


@pytest.mark.parametrize(("container", "codec"), VIDEOS)
def test_every_codec_keeps_pictures_times_and_colours_in_every_container(
    container: str, codec: str, tmp_path: Path
) -> None:
    encoding, path = encoded(container, codec=codec), tmp_path / f"out.{container}"
    assert written(path, encoding) == []
    reader, time_base = FrameReader(path), probe(path).time_base
    pairs = list(reader)
    assert [round(1000 * time * time_base) for time, _ in pairs] == [40 * time for time in TIMES]
    assert round(1000 * reader.last_duration * time_base) == 80 or container in ("mkv", "webm")
    for (_, frame), image in zip(pairs, drawn(), strict=True):
        assert np.abs(frame.astype(int) - image).mean() < 5
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        found = stream.codec_context
        assert found.codec.canonical_name == codec
        assert (found.pix_fmt, found.colorspace, found.color_range) == (encoding.pixel_format, 1, 1)
        assert codec != "hevc" or container == "mkv" or found.codec_tag == "hvc1"


@pytest.mark.parametrize(("container", "codec"), [*VIDEOS, ("gif", "gif"), ("png", "png")])
def test_the_same_frames_give_the_same_bytes(container: str, codec: str, tmp_path: Path) -> None:
    encoding, found = encoded(container, codec=codec), set()
    for _ in range(3):
        written(tmp_path / "out", encoding)
        found.add((tmp_path / "out").read_bytes())
    assert len(found) == 1


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_quality_and_distance_of_keyframes_are_the_encoders(codec: str, tmp_path: Path) -> None:
    path, sizes = tmp_path / "out.mkv", []
    for crf in (10, 50):
        written(path, encoded("mkv", codec=codec, crf=crf, gop=3))
        sizes.append(path.stat().st_size)
        with av.open(str(path)) as source:
            keys = [index for index, packet in enumerate(source.demux(video=0)) if packet.size and packet.is_keyframe]
        assert keys[:2] == [0, 3]
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize(
    ("container", "choices", "size"),
    [
        ("mp4", {}, (36, 52)),
        ("mp4", {"pixel_format": "yuv422p10le"}, (35, 52)),
        ("mp4", {"pixel_format": "yuv444p"}, (35, 51)),
        ("mov", {"codec": "prores"}, (35, 52)),
        ("gif", {}, (35, 51)),
    ],
)
def test_only_subsampled_colour_needs_even_sides(
    container: str, choices: dict[str, str], size: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "out"
    notes = written(path, encoded(container, **choices), frames=drawn((35, 51)))
    assert (probe(path).height, probe(path).width) == size
    assert any("is odd" in note for note in notes) == (size != (35, 51))


@pytest.mark.parametrize(
    ("container", "choices", "words"),
    [
        ("avi", {}, "the container avi is unknown: choose one of mp4"),
        ("webm", {"codec": "h264"}, "webm cannot contain h264: choose vp9 or av1, or another format"),
        ("mov", {"codec": "av1"}, "mov cannot contain av1: choose h264, hevc or prores"),
        ("mp4", {"pixel_format": "rgb24"}, "h264 cannot be encoded as rgb24: choose yuv420p"),
        ("mp4", {"crf": 52}, "the CRF of h264 is from 0 to 51, not 52"),
        ("mov", {"codec": "prores", "crf": 3}, "prores has no CRF"),
        ("gif", {"gop": 3}, "gif has keyframes only"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_sentence(container: str, choices: dict[str, Any], words: str) -> None:
    with pytest.raises(VideoError, match=words):
        encoded(container, **choices)


def test_an_encoder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.video._formats.av.codecs_available", {"libx264"})
    with pytest.raises(VideoError, match=r"this installation of FFmpeg cannot encode av1 \(it has no libsvtav1\)"):
        choose_encoding("mp4", codec="av1")


# --- like the source -------------------------------------------------------------------------------------------------


def test_an_encoding_like_the_sources_has_its_codec_pixels_keyframes_and_bit_rate(make_clip: MakeClip) -> None:
    path = make_clip(drawn(), codec="libx265", pix_fmt="yuv422p", options={"g": "3", "x265-params": "log-level=none"})
    source = source_encoding(path)
    assert (source.codec, source.pixel_format, source.gop) == ("hevc", "yuv422p", 3)
    assert source.bit_rate
    like = encoding_like(source, "mp4")
    assert like == Encoding(codec="hevc", pixel_format="yuv422p", crf=None, gop=3, bit_rate=source.bit_rate)
    written(path.with_name("out.mp4"), like)
    assert source_encoding(path.with_name("out.mp4")).codec == "hevc"


@pytest.mark.parametrize(
    ("source", "container", "choices", "expected"),
    [
        (SourceEncoding(codec="wmv2", pixel_format="yuv420p"), "mp4", {}, Encoding()),
        (SourceEncoding(codec="h264", pixel_format="yuvj420p", bit_rate=9), "mp4", {"crf": 20}, Encoding(crf=20)),
        (
            SourceEncoding(codec="h264", pixel_format="yuv444p"),
            "mov",
            {},
            Encoding(container="mov", pixel_format="yuv444p"),
        ),
        (SourceEncoding(codec="prores", pixel_format="yuva444p12le"), "mp4", {"gop": 5}, Encoding(gop=5)),
        (
            SourceEncoding(codec="mpeg4", pixel_format="yuv420p", bit_rate=9, gop=7),
            "mkv",
            {},
            Encoding(container="mkv", gop=7),
        ),
    ],
)
def test_what_cannot_be_like_the_source_is_the_default(
    source: SourceEncoding, container: str, choices: dict[str, Any], expected: Encoding
) -> None:
    assert encoding_like(source, container, **choices) == expected


# --- GIF and pictures ------------------------------------------------------------------------------------------------


def test_a_gif_has_the_frames_with_their_durations_and_says_what_it_lacks(make_clip: MakeClip, tmp_path: Path) -> None:
    audio = read_audio(make_clip(drawn(), tones=[440.0]))
    notes = written(tmp_path / "out.gif", encoded("gif"), audio=audio)
    assert notes == [
        "The GIF has 256 colours in each frame, and times in hundredths of a second.",
        "Audio is not kept: a GIF has none.",
    ]
    with Image.open(tmp_path / "out.gif") as picture:
        assert picture.n_frames == 7
        durations = []
        for index, image in enumerate(drawn()):
            picture.seek(index)
            durations.append(picture.info["duration"])
            assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - image).mean() < 12
        assert picture.info["loop"] == 0
    assert durations == [40, 40, 80, 40, 120, 40, 80]


def test_frames_that_are_too_short_for_a_gif_are_left_out_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "out.gif"
    notes = written(path, encoded("gif"), timestamps=range(7), time_base=Fraction(1, 100), last_duration=1)
    assert notes[-1] == "3 frames are left out of the GIF, which shows each for 0.02 s at least."
    assert [round(100 * time * probe(path).time_base) for time, _ in FrameReader(path)] == [0, 2, 4, 6]


def test_a_zip_of_pictures_has_every_frame_exactly_and_the_times(make_clip: MakeClip, tmp_path: Path) -> None:
    audio = read_audio(make_clip(drawn(), tones=[440.0]))
    notes = written(tmp_path / "out.zip", encoded("png"), audio=audio)
    assert notes == [
        "The pictures have no times: timestamps.txt next to them states those of the source.",
        "Audio is not kept: pictures have none.",
    ]
    with zipfile.ZipFile(tmp_path / "out.zip") as pictures:
        names = [f"{index:06d}.png" for index in range(7)]
        assert pictures.namelist() == [*names, "timestamps.txt"]
        read = [np.asarray(Image.open(io.BytesIO(pictures.read(name)))) for name in names]
        lines = pictures.read("timestamps.txt").decode().splitlines()
    np.testing.assert_array_equal(read, drawn())
    assert lines == ["# timestamp format v2", *(f"{40 * time:.6f}" for time in TIMES)]


# --- audio -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "container", "kept", "noted"),
    [
        ("clip.mp4", "aac", "webm", "opus", "Audio in aac was encoded again, as Opus"),
        ("clip.mkv", "libopus", "webm", "opus", ""),
        ("clip.mov", "pcm_s16le", "mov", "pcm_s16le", ""),
        ("clip.mov", "pcm_s16le", "mp4", "aac", "Audio in pcm_s16le was encoded again, as AAC"),
    ],
)
def test_audio_is_copied_where_the_container_takes_it_and_encoded_elsewhere(
    name: str, codec: str, container: str, kept: str, noted: str, make_clip: MakeClip, tmp_path: Path
) -> None:
    source = make_clip(25 * drawn()[:1], name=name, tones=[440.0], audio_codec=codec)
    path = tmp_path / f"out.{container}"
    more = {"frames": 25 * drawn()[:1], "timestamps": range(25), "audio": read_audio(source)}
    notes = written(path, encoded(container), **more)
    assert [noted in note for note in notes] == ([True] if noted else [])
    with av.open(str(path)) as written_file:
        sound = written_file.streams.audio[0]
        assert sound.codec_context.name == {"opus": "opus"}.get(kept, kept)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=48000)
        parts = [part for frame in written_file.decode(sound) for part in resampler.resample(frame)]
        wave = np.concatenate([part.to_ndarray()[0] for part in parts])
    assert len(wave) == pytest.approx(48000, abs=2100)
    assert np.abs(np.fft.rfft(wave[:24000], 48000)).argmax() == pytest.approx(440, abs=3)


def test_encoders_print_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for codec in ("hevc", "av1"):
        written(tmp_path / "out.mp4", encoded("mp4", codec=codec))
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
