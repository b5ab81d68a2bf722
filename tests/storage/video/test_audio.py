from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
import pytest

from storage.errors import VideoError
from storage.video import Extent, FrameReader, Notes, probe, read_audio, read_frames, write_video

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
        audio=read_audio(path, extent=reader.extent, notes=notes),
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


# --- audio that cannot be copied -----------------------------------------------------------------------------------


def sound_clip(path: Path, codec: str, *, layout: str, video: str = "mpeg4", seconds: float = 0.8) -> Path:
    """Write a clip with low noise that swells to the end, the same in all channels."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(video, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound: Any = container.add_stream(codec, rate=48000, layout=layout, options={"strict": "-2"})
        sound.bit_rate = 128_000
        for index in range(round(25 * seconds)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 3 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
        count = round(48000 * seconds)
        noise = np.convolve(np.random.default_rng(5).normal(size=count), np.hanning(48) / 48, mode="same")
        wave = (noise * np.linspace(0.2, 1, count)).astype(np.float32)
        channels = sound.codec_context.layout.nb_channels
        frame = av.AudioFrame.from_ndarray(np.tile(wave, (channels, 1)), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        resampler = av.AudioResampler(
            format=sound.codec_context.format,
            layout=layout,
            rate=48000,
            frame_size=sound.codec_context.frame_size or 960,
        )
        for part in [*resampler.resample(frame), None]:
            container.mux(sound.encode(part))
    return path


def decoded(packet: Any) -> list[Any]:
    with contextlib.suppress(av.error.InvalidDataError):
        return list(packet.decode())
    return []


def heard(path: Path) -> npt.NDArray[Any]:
    """Return the sound as it is heard: mono at 48 kHz, each decoded frame at its time, 4 s in all."""
    wave, end = np.zeros(4 * 48000), 0
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=48000)
        for packet in container.demux(container.streams.audio[0]):
            for frame in decoded(packet):
                start = end if frame.pts is None else round(frame.pts * frame.time_base * 48000)
                frame.pts = None
                for part in resampler.resample(frame):
                    samples = part.to_ndarray()[0]
                    end = start + len(samples)
                    wave[max(start, 0) : end] = samples[max(-start, 0) :]
    return wave


def lag(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> float:
    """Return by how many milliseconds a sound comes later than another."""
    spectra = [np.fft.rfft(wave, 2 * len(before)) for wave in (before, after)]
    match = np.fft.irfft(spectra[0].conj() * spectra[1])
    place = int(match.argmax())
    return (place if place < len(before) else place - len(match)) / 48


@pytest.mark.parametrize(
    ("codec", "name", "layout", "channels"),
    [
        ("pcm_s24le", "clip.mov", "stereo", 2),
        ("pcm_s24be", "clip.mov", "mono", 1),
        ("pcm_s16le", "clip.mkv", "5.1", 6),
        ("pcm_s16le", "clip.mkv", "quad", 4),
        ("pcm_s16le", "clip.avi", "stereo", 2),
        ("pcm_f32le", "clip.mkv", "stereo", 2),
        ("wavpack", "clip.mkv", "5.1(side)", 6),
        ("wavpack", "clip.mkv", "stereo", 2),
        ("wmav2", "clip.wmv", "stereo", 2),
        ("wmav1", "clip.wmv", "mono", 1),
        ("adpcm_ima_qt", "clip.mov", "mono", 1),
        ("pcm_mulaw", "clip.mov", "mono", 1),
    ],
)
def test_audio_that_mp4_does_not_support_is_heard_as_before(
    codec: str, name: str, layout: str, channels: int, tmp_path: Path
) -> None:
    video = "wmv2" if name.endswith("wmv") else "mpeg4"
    path, notes = sound_clip(tmp_path / name, codec, layout=layout, video=video), Notes()
    out = rewritten(path, notes=notes)
    before, after = heard(path), heard(out)
    assert abs(lag(before, after)) <= 1
    assert np.abs(after).max() == pytest.approx(np.abs(before).max(), rel=0.2)
    assert after.std() == pytest.approx(before.std(), rel=0.05)
    ends = [np.flatnonzero(np.abs(wave) > np.abs(before).max() / 5)[-1] / 48 for wave in (before, after)]
    assert ends[0] == pytest.approx(ends[1], abs=15)
    with av.open(str(out)) as container:
        (stream,) = container.streams.audio
        assert (stream.codec_context.name, stream.codec_context.layout.nb_channels) == ("aac", channels)
    assert any(line.startswith(f"Audio in {codec} was encoded again, as AAC") for line in notes.lines)


def test_a_gap_in_audio_that_is_encoded_again_stays_silent(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    whole = sound_clip(tmp_path / "whole.mkv", "pcm_s16le", layout="mono")
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size and (packet.stream.type == "video" or not 200 <= packet.pts < 500):
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    out = rewritten(path)
    before, after = heard(path), heard(out)
    times = [time * 48000 for time, _ in packets(out)]
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {1024}
    assert before[12000:22000].max() == 0
    assert np.abs(after[12000:22000]).max() < 1e-3
    assert after[26000:36000].std() == pytest.approx(before[26000:36000].std(), rel=0.05)
    assert abs(lag(before, after)) <= 1


def test_the_last_packet_of_a_codec_without_durations_is_kept(tmp_path: Path) -> None:
    path = sound_clip(tmp_path / "clip.mkv", "alac", layout="mono")
    out = rewritten(path)
    assert [content for _, content in packets(out)] == [content for _, content in packets(path)]
    ends = [np.flatnonzero(heard(each))[-1] / 48 for each in (path, out)]
    assert ends[0] == pytest.approx(ends[1], abs=1)


@pytest.mark.parametrize(("codec", "layouts"), [("aac", ("mono", "mono")), ("mp2", ("mono", "stereo"))])
def test_audio_of_joined_recordings_follows_the_video(codec: str, layouts: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "joined.ts"
    for number, layout in enumerate(layouts):
        part = sound_clip(tmp_path / f"{number}.ts", codec, layout=layout, video="mpeg2video", seconds=1.6)
        with path.open("ab") as file:
            file.write(part.read_bytes())
    out, reader = tmp_path / "out.mp4", FrameReader(path)
    times = [time for time, _ in reader]
    assert len(times) == 80
    audio, black = read_audio(path, extent=reader.extent), 80 * [np.zeros((48, 64, 3), np.uint8)]
    write_video(out, black, timestamps=times, time_base=Fraction(1, 90000), audio=audio)
    first, whole = heard(tmp_path / "0.ts"), heard(out)
    start = round(48000 * float(probe(tmp_path / "0.ts").start))
    one = first[start : start + 76800]
    place = round(times[40] / 90000 * 48000)
    assert abs(lag(one, whole[: len(one)])) <= 1
    assert abs(lag(one, whole[place : place + len(one)])) <= 25  # each part begins with the encoder's delay


def test_pcm_is_copied_into_quicktime(tmp_path: Path) -> None:
    path, notes = sound_clip(tmp_path / "clip.mov", "pcm_s24le", layout="stereo"), Notes()
    out = rewritten(path, "out.mov", notes)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == "pcm_s24le"
    np.testing.assert_array_equal(heard(out), heard(path))
    assert notes.lines == []


def test_languages_and_the_default_track_are_kept(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = make_clip(flat_frames(*GREYS), tones=[300.0, 600.0, 1200.0])
    marked = path.with_name("marked.mp4")
    with av.open(str(path)) as source, av.open(str(marked), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for index, stream in streams.items():
            stream.disposition = 1 if index in {0, 2} else 0
            stream.metadata.update(source.streams[index].metadata)
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    for name in ("out.mp4", "out.mkv"):
        with av.open(str(rewritten(marked, name))) as container:
            found = [(stream.language, bool(stream.disposition & 1)) for stream in container.streams.audio]
        assert found == [("eng", False), ("deu", True), ("fra", False)]


def test_damaged_audio_is_kept_as_far_as_it_goes_and_in_sync(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path = sound_clip(make_clip(flat_frames(*GREYS)).with_name("clip.ts"), "aac", layout="mono", video="mpeg2video")
    whole, data = heard(path), bytearray(path.read_bytes())
    own = [at for at in range(0, len(data), 188) if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF == 0x101]
    for at in own[len(own) // 2 : len(own) // 2 + 3]:
        data[at + 4 : at + 188] = bytes(184)
    path.write_bytes(data)
    out = heard(rewritten(path))
    assert abs(lag(whole, out) + float(1000 * probe(path).start)) <= 1
    assert 0.5 < out.std() / whole.std() <= 1.05


def test_audio_that_cannot_be_decoded_is_left_out_with_a_note(tmp_path: Path) -> None:
    path, notes = sound_clip(tmp_path / "clip.mkv", "wavpack", layout="stereo"), Notes()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"A_WAVPACK4", b"A_UNKNOWN4"))
    out = rewritten(path, notes=notes)
    with av.open(str(out)) as container:
        assert len(container.streams.audio) == 0
        assert len(container.streams.video) == 1
    assert notes.lines == ["1 audio track that cannot be decoded is not kept."]


def test_audio_after_the_end_of_a_cut_video_is_left_out(make_clip: MakeClip, flat_frames: FlatFrames) -> None:
    path, notes = make_clip(flat_frames(*GREYS), tones=[440.0]), Notes()
    extent = Extent(end=Fraction(1, 2), is_cut=True)
    with av.open(io.BytesIO(read_audio(path, extent=extent, notes=notes) or b"")) as container:
        stream = container.streams.audio[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(0.5, abs=0.03)
    assert notes.lines == ["Audio after 0.50 s is left out: the pictures end there."]


def test_audio_after_the_pictures_goes_on_unless_its_time_is_damaged(tmp_path: Path) -> None:
    path, notes = sound_clip(tmp_path / "clip.mkv", "pcm_s16le", layout="mono", seconds=1.6), Notes()
    assert read_audio(path, extent=Extent(end=Fraction(4, 5)), notes=notes) == read_audio(path)
    assert notes.lines == []
    late = tmp_path / "late.mkv"
    with av.open(str(path)) as source, av.open(str(late), "w") as target:
        output = (
            target.add_stream_from_template(source.streams.video[0]),
            target.add_stream_from_template(source.streams.audio[0]),
        )
        for packet in source.demux():
            if packet.size:
                if packet.stream_index == 1 and packet.pts >= 800:
                    packet.pts = packet.dts = packet.pts + 20_000
                packet.stream = output[packet.stream_index]
                target.mux(packet)
    reader = FrameReader(late)
    list(reader)
    with av.open(io.BytesIO(read_audio(late, extent=reader.extent, notes=notes) or b"")) as container:
        lead_in = int(container.metadata["WAVE_LEAD_IN"])
        assert float((container.duration or 0) / av.time_base) - lead_in == pytest.approx(0.8, abs=0.03)
    assert notes.lines == ["Audio after 1.60 s is left out: the pictures end there."]
