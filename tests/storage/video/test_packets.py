from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from storage.video import FrameReader, Notes, probe, read_audio, read_frames, write_video

FlatFrames = Callable[..., list[npt.NDArray[np.uint8]]]
MakeClip = Callable[..., Path]
TS_PACKET = 188
GREYS = [(5 * level,) * 3 for level in range(1, 51)]


def noise(count: int) -> list[npt.NDArray[np.uint8]]:
    generator = np.random.default_rng(3)
    return [generator.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]


def seconds(path: Path, reader: FrameReader) -> tuple[list[float], float]:
    time_base = probe(path).time_base
    times = [float(time * time_base) for time, _ in reader]
    return times, float(reader.last_duration * time_base)


def test_a_file_that_is_cut_off_keeps_its_timing_and_says_what_is_missing(make_clip: MakeClip, tmp_path: Path) -> None:
    whole, path, notes = make_clip(noise(50), tones=[440.0]), tmp_path / "cut.mp4", Notes()
    write_video(
        path,
        (frame for _, frame in read_frames(whole)),
        timestamps=range(50),
        time_base=Fraction(1, 25),
        audio=read_audio(whole),
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = FrameReader(path, notes=notes)
    times, last = seconds(path, reader)
    assert 15 < len(times) < 35
    assert times == pytest.approx([index / 25 for index in range(len(times))])
    assert last == pytest.approx(1 / 25)
    assert notes.lines == [f"{50 - len(times)} of 50 frames are missing: the file is damaged or ends early."]
    assert reader.cut_at == Fraction(len(times), 25)


def test_a_whole_file_is_not_cut(make_clip: MakeClip) -> None:
    for name in ("clip.mp4", "clip.mkv", "clip.ts", "clip.avi"):
        codec = "mpeg4" if name == "clip.avi" else "libx264"
        notes = Notes()
        reader = FrameReader(make_clip(noise(12), name=name, codec=codec), notes=notes)
        assert len(list(reader)) == 12
        assert (reader.cut_at, notes.lines) == (None, [])


def test_an_mxf_file_that_is_cut_off_says_what_is_missing(make_clip: MakeClip) -> None:
    path, notes = make_clip(noise(20), name="clip.mxf", codec="mpeg2video"), Notes()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    read = len(list(FrameReader(path, notes=notes)))
    assert 4 < read < 16
    assert notes.lines == [f"{20 - read} of 20 frames are missing: the file is damaged or ends early."]


def test_a_matroska_file_that_ends_before_its_stated_duration_says_what_is_missing(make_clip: MakeClip) -> None:
    path, notes = make_clip(noise(12), name="clip.mkv"), Notes()
    data = path.read_bytes()
    assert data.count(b"00:00:00.480000000") == 1
    path.write_bytes(data.replace(b"00:00:00.480000000", b"00:00:00.800000000"))
    reader = FrameReader(path, notes=notes)
    assert len(list(reader)) == 12
    assert notes.lines == ["8 of 20 frames are missing: the file is damaged or ends early."]
    assert reader.cut_at == Fraction(12, 25)


@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "mjpeg"), ("clip.mkv", "libx264"), ("clip.mov", "mpeg4")])
def test_half_a_file_says_that_half_of_its_frames_are_missing(name: str, codec: str, make_clip: MakeClip) -> None:
    options = {"movflags": "faststart"} if name == "clip.mov" else {}
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path, notes = make_clip(noise(40), name=name, codec=codec, pix_fmt=pix_fmt, container=options), Notes()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = FrameReader(path, notes=notes)
    count = len(list(reader))
    assert 10 < count < 30
    assert reader.cut_at == Fraction(count, 25)
    assert f"{40 - count} of 40 frames are missing: the file is damaged or ends early." in notes.lines


def test_frames_that_lost_packets_of_a_transport_stream_leave_a_note(make_clip: MakeClip) -> None:
    path, notes = make_clip(noise(50), name="clip.ts", options={"g": "5"}, tones=[440.0]), Notes()
    data = path.read_bytes()
    packets = [data[start : start + TS_PACKET] for start in range(0, len(data), TS_PACKET)]
    third = len(packets) // 3
    kept = [packet for index, packet in enumerate(packets) if not (third < index < 2 * third and index % 8 == 0)]
    path.write_bytes(b"".join(kept))
    reader = FrameReader(path, notes=notes)
    times, _ = seconds(path, reader)
    assert reader.cut_at is None
    assert times[-1] - times[0] == pytest.approx(49 / 25, abs=1e-3)
    assert len(times) < 50
    assert notes.lines[0] == f"{50 - len(times)} of 50 frames are missing: the file is damaged or ends early."
    assert read_audio(path) is not None


def test_a_start_that_cannot_be_decoded_is_left_out(make_clip: MakeClip) -> None:
    options = {"bf": "2", "x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"}
    path = make_clip(noise(50), name="clip.ts", options=options, tones=[440.0])
    data, notes = path.read_bytes(), Notes()
    path.write_bytes(data[len(data) // 6 // TS_PACKET * TS_PACKET :])
    reader = FrameReader(path, notes=notes)
    times, last = seconds(path, reader)
    assert 25 < len(times) < 48
    assert times[0] == pytest.approx(0, abs=0.1)  # audio may start a little earlier
    assert times[-1] - times[0] == pytest.approx((len(times) - 1) / 25, abs=1e-3)
    assert last == pytest.approx(1 / 25, abs=1e-3)
    assert notes.lines[0].endswith("s cannot be decoded and are left out, with their sound.")
    assert probe(path).conversions == ("from the first frame that can be decoded",)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_the_last_frame_of_a_variable_rate_lasts_as_long_as_its_packet(name: str, make_clip: MakeClip) -> None:
    times = [0, 40, 80, 81, 160, 400]
    path = make_clip(noise(6), times=times, time_base=Fraction(1, 1000))
    target = path.with_name(name.replace("clip", "out"))
    write_video(
        target,
        (frame for _, frame in read_frames(path)),
        timestamps=times,
        time_base=Fraction(1, 1000),
        last_duration=70,
    )
    found, last = seconds(target, FrameReader(target))
    assert found == pytest.approx([time / 1000 for time in times], abs=1e-3)
    assert last == pytest.approx(0.07, abs=1e-3)


def test_frames_after_a_lost_one_keep_their_times_where_packets_have_those_of_decoding(
    flat_frames: FlatFrames, make_clip: MakeClip
) -> None:
    colours = [(8 * index, 40, 200) for index in range(30)]
    path = make_clip(flat_frames(*colours), name="clip.avi", options={"bf": "2", "g": "30", "b-pyramid": "none"})
    whole = [time for time, _ in read_frames(path)]
    assert whole == list(range(30))
    data = path.read_bytes()
    with av.open(str(path)) as source:
        lost = [packet for packet in source.demux(video=0) if packet.size][6]
        start = data.index(bytes(lost))
    path.write_bytes(data[:start] + b"\xff" * lost.size + data[start + lost.size :])
    times = [time for time, _ in read_frames(path)]
    assert len(times) == 29
    assert times[-5:] == whole[-5:]


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize("name", ["clip.mxf", "clip.mkv", "clip.avi"])
def test_frames_that_are_decoded_in_another_order_keep_their_times(
    flat_frames: FlatFrames, make_clip: MakeClip, name: str, codec: str
) -> None:
    """MXF as FFmpeg writes it has the order in which H.264 is shown nowhere, and that of MPEG-2 in its index."""
    path = make_clip(flat_frames(*[(8 * i, 40, 200) for i in range(24)]), name=name, codec=codec, options={"bf": "2"})
    reader = FrameReader(path, notes=(notes := Notes()))
    found, _ = seconds(path, reader)
    assert found == pytest.approx([i / 25 for i in range(24)], abs=1e-3)
    assert notes.lines == []
