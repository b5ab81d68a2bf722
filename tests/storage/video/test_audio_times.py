from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from storage.video import FrameReader, Notes, check_video_pair, read_audio
from storage.video._timing import AudioClock
from tests.storage.video.test_audio import GREYS, FlatFrames, MakeClip, packets, rewritten, sound_clip
from tests.storage.video.test_channels import loudness, surround_clip

Timed = Callable[[int, Any], None]
LONG = 1024


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 1024, 2048], [0, 1024, 2048]),
        ([0, 1024, 1024, 3072], [0, 1024, 2048, 3072]),
        ([0, 1024, 1024, 2048, 3072], [0, 1024, 2048, 2049, 3072]),
        ([0, 1024, 500, 2048], [0, 1024, 1025, 2048]),
        ([0, 0, 0, 0], [0, 1024, 2048, 3072]),
        ([9600, 19200, 0, 1024], [9600, 19200, 20224, 20225]),
    ],
)
def test_times_of_packets_increase(times: Sequence[int], expected: Sequence[int]) -> None:
    clock = AudioClock(Fraction(1, 48000))
    assert [clock.place(time, LONG) for time in times] == expected


def test_packets_shorter_than_the_resolution_of_their_times_keep_equal_times() -> None:
    clock = AudioClock(Fraction(1, 1000))
    assert [clock.place(time, 1) for time in (0, 1, 2, 2, 3)] == [0, 1, 2, 2, 3]


def test_packets_follow_a_restart_of_the_video() -> None:
    clock = AudioClock(Fraction(1, 48000), [Fraction(2)])
    assert [clock.place(time, LONG) for time in (94000, 95024, 0, 1024)] == [94000, 95024, 96000, 97024]


def retimed(source: Path, target: Path, change: Timed) -> Path:
    """Copy a clip, with a change of each packet of audio, by its number."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        count = 0
        for packet in container.demux():
            if packet.size:
                if packet.stream.type == "audio":
                    change(count, packet)
                    count += 1
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    return target


def test_a_packet_with_the_time_of_the_one_before_is_copied(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    def double(count: int, packet: Any) -> None:
        if count == 10:
            packet.pts = packet.dts = packet.pts - 21

    clip = make_clip(flat_frames(*GREYS), name="clip.mkv", tones=[440.0])
    path, notes = retimed(clip, clip.with_name("doubled.mkv"), double), Notes()
    out = rewritten(path, notes=notes)
    assert [content for _, content in packets(out)] == [content for _, content in packets(path)]
    assert notes.lines == []


def test_packets_without_a_duration_are_copied_to_the_last_one(tmp_path: Path) -> None:
    path = sound_clip(tmp_path / "clip.nut", "vorbis", layout="stereo")
    out = rewritten(path)
    assert [content for _, content in packets(out)] == [content for _, content in packets(path)]
    with av.open(io.BytesIO(read_audio(path) or b"")) as container:
        assert [packet.duration for packet in container.demux() if packet.size][-1] == 1024


def test_tta_is_encoded_since_matroska_does_not_store_its_length(tmp_path: Path) -> None:
    notes = Notes()
    out = rewritten(surround_clip(tmp_path / "clip.mkv", "stereo", loud=1, codec="tta"), notes=notes)
    assert {name: bool(value > 0.02) for name, value in loudness(out).items()} == {"FL": False, "FR": True}
    assert not any("damaged" in line for line in notes.lines)


def timed(path: Path) -> list[tuple[Fraction, Fraction]]:
    with av.open(str(path)) as container:
        return [
            (packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base)
            for packet in container.demux(audio=0)
            if packet.pts is not None
        ]


def test_audio_that_begins_before_zero_stays_in_sync_next_to_audio_that_only_matroska_takes(tmp_path: Path) -> None:
    path = tmp_path / "clip.mov"
    with av.open(str(path), "w") as target:
        video: Any = target.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sounds: list[Any] = [target.add_stream(name, rate=48000, layout="mono") for name in ("aac", "pcm_s16le")]
        for index in range(20):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts = index
            target.mux(video.encode(frame.reformat(format="yuv420p")))
        target.mux(video.encode(None))
        wave = np.sin(np.linspace(0, 60, 38400) ** 2).astype(np.float32)
        for sound in sounds:
            whole = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            whole.sample_rate, whole.pts = 48000, 0
            for part in av.AudioResampler(format=sound.codec_context.format, frame_size=1024).resample(whole):
                target.mux(sound.encode(part))
            target.mux(sound.encode(None))
    assert timed(path)[0][0] == Fraction(-1024, 48000)
    out = rewritten(path)
    assert float(timed(out)[0][0]) == pytest.approx(-1024 / 48000, abs=1e-3)
    assert [check.name for check in check_video_pair(path, out)[0] if not check.passed] == []


def test_audio_of_which_the_sample_rate_changes_is_encoded_with_one(tmp_path: Path) -> None:
    parts = [tmp_path / f"{rate}.ts" for rate in (44100, 48000)]
    for part in parts:
        with av.open(str(part), "w") as target:
            video: Any = target.add_stream("mpeg2video", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            rate = int(part.stem)
            sound: Any = target.add_stream("mp2", rate=rate, layout="mono")
            for index in range(15):
                frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
                frame.pts = index
                target.mux(video.encode(frame.reformat(format="yuv420p")))
            target.mux(video.encode(None))
            tone = 9000 * np.sin(np.arange(rate * 6 // 10) * 2 * np.pi * 440 / rate)
            whole = av.AudioFrame.from_ndarray(tone[None].astype(np.int16), format="s16", layout="mono")
            whole.sample_rate, whole.pts = rate, 0
            target.mux([*sound.encode(whole), *sound.encode(None)])
    path, notes = tmp_path / "clip.ts", Notes()
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    out = rewritten(path, notes=notes)
    with av.open(str(out)) as container:
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        rate = container.streams.audio[0].codec_context.sample_rate
    for middle in (0.3, 0.9):
        part = wave[round(rate * (middle - 0.2)) :][: round(rate * 0.4)]
        assert np.abs(np.fft.rfft(part)).argmax() / 0.4 == pytest.approx(440, abs=5)
    assert any("mp2 was encoded again" in line for line in notes.lines)


def test_audio_that_is_declared_and_never_begins_is_noted(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    clip = make_clip(flat_frames(*GREYS[:12]), name="clip.ts", tones=[440.0])
    data = clip.read_bytes()
    cells = [data[start : start + 188] for start in range(0, len(data), 188)]
    clip.write_bytes(b"".join(cell for cell in cells if cell[1] & 0x1F != 1 or cell[2] != 1))  # not of PID 0x101
    notes = Notes()
    reader = FrameReader(clip, notes=notes)
    assert len(list(reader)) == 12
    audio = read_audio(clip, extent=reader.extent, notes=notes)
    assert audio is None or not list(demuxed(audio))
    assert notes.lines == ["Audio in aac is not kept: it cannot be decoded."]


def demuxed(audio: bytes) -> list[Any]:
    with av.open(io.BytesIO(audio)) as container, contextlib.suppress(av.error.FFmpegError):
        return [packet for packet in container.demux() if packet.size]
    return []
