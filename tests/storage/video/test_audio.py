from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from storage.errors import VideoError
from storage.video import FrameReader, Notes, probe, read_audio, read_frames, write_video

FlatFrames = Callable[..., list[npt.NDArray[np.uint8]]]
MakeClip = Callable[..., Path]
GREYS = [(8 * level, 8 * level, 8 * level) for level in range(1, 31)]


def rewritten(path: Path, name: str = "out.mp4", notes: Notes | None = None) -> Path:
    """Write the clip's frames and audio to another file, as the pipeline does."""
    reader = FrameReader(path, notes=notes)
    times = [time for time, _ in reader]
    target = path.with_name(name)
    write_video(
        target,
        (frame for _, frame in read_frames(path)),
        timestamps=times,
        time_base=probe(path).time_base,
        last_duration=reader.last_duration,
        audio=read_audio(path, until=reader.cut_at, notes=notes),
        notes=notes,
    )
    return target


def packets(path: Path, index: int = 0) -> list[tuple[Fraction, bytes]]:
    """Return the time in seconds and the content of every packet of an audio stream."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[index]
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(stream)
            if packet.size and packet.pts is not None
        ]


def samples(path: Path, index: int = 0) -> npt.NDArray[Any]:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=48000)
        frames = [
            part for frame in container.decode(container.streams.audio[index]) for part in resampler.resample(frame)
        ]
        return np.concatenate([part.to_ndarray()[0] for part in frames])


def loudest(wave: npt.NDArray[Any]) -> float:
    """Return the frequency of the loudest tone, in Hz."""
    return float(np.abs(np.fft.rfft(wave[:48000])).argmax() * 48000 / len(wave[:48000]))


def test_a_silent_clip_has_no_audio(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    assert read_audio(make_clip(flat_frames(*GREYS[:2]))) is None


@pytest.mark.parametrize("codec", ["aac", "libmp3lame", "ac3", "libopus", "flac", "alac"])
def test_packets_are_copied_with_their_times(codec: str, make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*GREYS), tones=[440.0], audio_codec=codec)
    out = rewritten(path)
    before, after = packets(path), packets(out)
    assert [content for _, content in after] == [content for _, content in before]
    assert [float(time) for time, _ in after] == pytest.approx([float(time) for time, _ in before], abs=1e-4)
    assert loudest(samples(out)) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("start", [0.5, 0.1234])
def test_audio_that_starts_late_starts_late_in_the_output(
    start: float, make_clip: MakeClip, flat_frames: FlatFrames
) -> None:
    path = make_clip(flat_frames(*GREYS), name="clip.mkv", tones=[440.0], audio_start=start)
    source, out = packets(path), packets(rewritten(path))
    assert float(out[0][0]) == pytest.approx(float(source[0][0]), abs=2e-3)


def test_all_audio_streams_are_kept_in_order_with_their_language(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    out = rewritten(make_clip(flat_frames(*GREYS), tones=[300.0, 600.0, 1200.0]))
    assert [loudest(samples(out, index)) for index in range(3)] == pytest.approx([300, 600, 1200], abs=2)
    with av.open(str(out)) as container:
        assert [stream.language for stream in container.streams.audio] == ["eng", "deu", "fra"]


@pytest.mark.parametrize(("codec", "name"), [("pcm_u8", "clip.mkv"), ("adpcm_ms", "clip.avi")])
def test_a_codec_that_mp4_does_not_support_is_encoded_as_aac(
    codec: str, name: str, make_clip: MakeClip, flat_frames: FlatFrames
) -> None:
    path = make_clip(flat_frames(*GREYS), name=name, tones=[440.0], audio_codec=codec)
    out = rewritten(path)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    assert loudest(samples(out)) == pytest.approx(440, abs=2)
    assert len(samples(out)) == pytest.approx(len(samples(path)), abs=2100)


def test_a_codec_is_copied_into_a_container_that_supports_it(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*GREYS), name="clip.mkv", tones=[440.0], audio_codec="pcm_u8")
    with av.open(str(rewritten(path, "out.mkv"))) as container:
        assert container.streams.audio[0].codec_context.name == "pcm_u8"


def test_the_containers_duration_is_kept(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*GREYS), tones=[440.0])
    with av.open(str(path)) as before, av.open(str(rewritten(path))) as after:
        assert after.duration == before.duration


def test_audio_and_video_are_interleaved_in_the_file(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    out = rewritten(make_clip(flat_frames(*GREYS), tones=[440.0]))
    with av.open(str(out)) as container:
        kinds = [packet.stream.type for packet in container.demux() if packet.size]
    half = len(kinds) // 2
    assert {"audio", "video"} == set(kinds[:half]) == set(kinds[half:])


def test_audio_that_cannot_be_read_is_refused(flat_frames: FlatFrames, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="audio"):
        write_video(
            tmp_path / "out.mp4", flat_frames(GREYS[0]), timestamps=[0], time_base=Fraction(1, 25), audio=b"no sound"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("codec", "kind"), [("aac", "mp4"), ("pcm_u8", "matroska")])
def test_audio_is_read_as_mp4_or_else_as_matroska(
    codec: str, kind: str, make_clip: MakeClip, flat_frames: FlatFrames
) -> None:
    path = make_clip(flat_frames(*GREYS), name="clip.mkv", tones=[440.0], audio_codec=codec)
    with av.open(io.BytesIO(read_audio(path) or b"")) as container:
        assert kind in container.format.name
        assert len(container.streams.video) == 0


def test_times_rounded_to_milliseconds_are_restored_to_whole_samples(
    make_clip: MakeClip, flat_frames: FlatFrames
) -> None:
    path = make_clip(flat_frames(*GREYS), name="clip.mkv", tones=[440.0])
    times = [time * 48000 for time, _ in packets(rewritten(path))]
    assert {after - before for before, after in itertools.pairwise(times)} == {1024}
