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

from storage.errors import VideoError
from storage.video import FrameReader, Notes, Trim, check_video_pair, copy_audio, probe, write_video

FlatFrames = Callable[..., list[npt.NDArray[np.uint8]]]
MakeClip = Callable[..., Path]
LEVELS = [8 * level for level in range(1, 31)]


@pytest.fixture
def uneven(make_clip: MakeClip, flat_frames: FlatFrames) -> Path:
    """Return 30 frames of different greys, 40 ms each, the eighth shown for twice as long, with two audio tracks."""
    times = [index + (index > 7) for index in range(30)]
    return make_clip(flat_frames(*((level,) * 3 for level in LEVELS)), times=times, tones=[440.0, 880.0])


def numbers(frames: list[npt.NDArray[np.uint8]]) -> list[int]:
    return [int(np.abs(np.array(LEVELS) - int(frame.mean())).argmin()) for frame in frames]


@pytest.mark.parametrize(
    ("trim", "first", "stop", "ticks"),
    [
        (Trim(), 0, 30, [0, 1, 2, 3, 4, 5, 6, 7, *range(9, 31)]),
        (Trim(start=0.2), 5, 30, [0, 1, 2, *range(4, 26)]),
        (Trim(start=0.201), 6, 30, [0, 1, *range(3, 25)]),
        (Trim(end=0.12), 0, 3, [0, 1, 2]),
        (Trim(start=0.08, end=0.4), 2, 9, [0, 1, 2, 3, 4, 5, 7]),
        (Trim(first=3, stop=5), 3, 5, [0, 1]),
        (Trim(stop=2), 0, 2, [0, 1]),
        (Trim(start=0.08, first=1, stop=3), 3, 5, [0, 1]),
        (Trim(start=1.0, stop=100), 24, 30, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_frames_of_a_part_begin_at_zero_and_keep_their_steps(
    trim: Trim, first: int, stop: int, ticks: list[int], uneven: Path
) -> None:
    reader = FrameReader(uneven, trim=trim)
    pairs = list(reader)
    tick = round(Fraction(1, 25) / probe(uneven).time_base)
    assert numbers([frame for _, frame in pairs]) == [*range(first, stop)]
    assert [time for time, _ in pairs] == [tick * each for each in ticks]
    assert trim.count(30, 25) == pytest.approx(len(pairs), abs=1)


@pytest.mark.parametrize(("stop", "ticks"), [(7, 1), (8, 2), (30, 1), (None, 1)])
def test_the_last_frame_of_a_part_lasts_until_the_next_one(stop: int | None, ticks: int, uneven: Path) -> None:
    reader = FrameReader(uneven, trim=Trim(first=2, stop=stop))
    times = [time for time, _ in reader]
    tick = round(Fraction(1, 25) / probe(uneven).time_base)
    assert reader.last_duration == ticks * tick
    assert reader.extent is not None
    assert reader.extent.end == (times[-1] + ticks * tick) * probe(uneven).time_base


@pytest.mark.parametrize(
    ("trim", "line"),
    [
        (Trim(start=0.2, end=0.4), "Only the part from 0.200 s to 0.400 s is kept, as asked: 4 frames."),
        (Trim(stop=1), "Only the part from 0.000 s to 0.040 s is kept, as asked: 1 frame."),
    ],
)
def test_a_part_is_noted_and_nothing_else(trim: Trim, line: str, uneven: Path) -> None:
    notes = Notes()
    list(FrameReader(uneven, trim=trim, notes=notes))
    assert notes.lines == [line]


def test_a_part_without_frames_is_refused_with_what_there_is(uneven: Path) -> None:
    with pytest.raises(VideoError, match=r"clip\.mp4 has no frame in the part that is to be edited: it has 30 frames"):
        list(FrameReader(uneven, trim=Trim(start=9.0)))


def test_a_part_is_read_no_further_than_it_goes(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*((level,) * 3 for level in LEVELS)), name="clip.ts", options={"g": "1"})
    whole = [frame for _, frame in FrameReader(path)]
    data = bytearray(path.read_bytes())
    data[2 * len(data) // 3 :] = bytes(len(data) - 2 * len(data) // 3)
    path.write_bytes(data)
    notes, cut = Notes(), Notes()
    assert len(list(FrameReader(path, notes=cut))) < 30
    assert cut.lines
    part = [frame for _, frame in FrameReader(path, trim=Trim(stop=6), notes=notes)]
    np.testing.assert_array_equal(part, whole[:6])
    assert notes.lines == ["Only the part from 0.000 s to 0.240 s is kept, as asked: 6 frames."]


def sweep(path: Path, codec: str, container: str, flat_frames: FlatFrames) -> Path:
    """Write two seconds of frames with a tone that rises and changes its volume in each tenth of a second."""
    with av.open(str(path), "w", format=container) as target:
        video: Any = target.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = target.add_stream(codec, rate=48000, layout="mono")
        for image in flat_frames(*(50 * [(90, 90, 90)])):
            target.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        target.mux(video.encode(None))
        tones = np.repeat(400 + 50 * np.arange(20), 4800)
        wave = np.sin(2 * np.pi * np.cumsum(tones) / 48000) * np.repeat(np.linspace(0, 7, 20) % 0.6 + 0.3, 4800)
        is_float = sound.codec_context.format.name.startswith("flt")
        samples = wave[None].astype(np.float32) if is_float else (wave[None] * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp" if is_float else "s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        target.mux([*sound.encode(frame), *sound.encode(None)])
    return path


def heard(path: Path) -> npt.NDArray[np.float32]:
    """Return what a player plays from time zero on, at 48 kHz."""
    with av.open(str(path)) as container:
        frames = [(frame.pts * frame.time_base, frame.to_ndarray()[0]) for frame in container.decode(audio=0)]
    start = round(frames[0][0] * 48000)
    samples = np.concatenate([part for _, part in frames])
    return samples[-start:] if start < 0 else np.concatenate([np.zeros(start, samples.dtype), samples])


@pytest.mark.parametrize(
    ("codec", "container"),
    [("aac", "mp4"), ("libmp3lame", "mp4"), ("libopus", "matroska"), ("flac", "matroska"), ("pcm_s16le", "mov")],
)
def test_audio_is_cut_along_with_the_frames_and_stays_in_sync(
    codec: str, container: str, flat_frames: FlatFrames, tmp_path: Path
) -> None:
    path, trim = sweep(tmp_path / "clip", codec, container, flat_frames), Trim(start=0.52, end=1.48)
    reader = FrameReader(path, trim=trim)
    pairs = list(reader)
    audio = io.BytesIO()
    assert copy_audio(path, audio, extent=reader.extent)
    write_video(
        tmp_path / "out.mp4",
        [frame for _, frame in pairs],
        timestamps=[time for time, _ in pairs],
        time_base=probe(path).time_base,
        last_duration=reader.last_duration,
        audio=audio.getvalue(),
    )
    played = heard(tmp_path / "out.mp4")
    assert 0.96 <= len(played) / 48000 < 0.96 + 0.1
    for tenth in range(9):  # 20 ms to 80 ms after each change of the tone
        part = played[round((0.1 * tenth + 0.1) * 48000) : round((0.1 * tenth + 0.16) * 48000)]
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 48000))
        assert spectrum.argmax() == pytest.approx(400 + 50 * (6 + tenth), abs=8)
    checks, _ = check_video_pair(path, tmp_path / "out.mp4", trim=trim)
    assert [check.name for check in checks if not check.passed] == []
    wrong, _ = check_video_pair(path, tmp_path / "out.mp4", trim=Trim(start=0.56, end=1.52))
    assert [check.name for check in wrong if not check.passed] != []
