from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from storage.video import Notes, check_video_pair
from storage.video._channels import Mix, take_channels
from tests.storage.video.test_audio import rewritten

IN_FFMPEGS_ORDER = b"chan\0\0\0\0\0\1\0\0\0\0\7\x0f"
"""QuickTime's box of channels, with a bit for each."""
IN_QUICKTIMES_ORDER = b"chan\0\0\0\0\0\x7d\0\7\0\0\0\0"
"""Its layout MPEG 6.1 A."""
AAC = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1")


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ("FC", Mix("mono")),
        ("FL FR", Mix("stereo")),
        ("FL FR LFE", Mix("5.1")),
        ("FL FR BC", Mix("4.0")),
        ("FL FR SL SR", Mix("5.0")),
        ("FL FR FC LFE SL SR", Mix("5.1")),
        ("FL FR FC BL BR SL SR", Mix("7.1")),
        ("FL FR FC LFE BC", Mix("5.1", "5.1|FL<c0|FR<c1|FC<c2|LFE<c3|BL<c4|BR<c4", has_all=False)),
        ("FC FL FR", Mix("3.0", "3.0|FL<c1|FR<c2|FC<c0")),
        ("FL FR FC BC TFL", Mix("5.0", "5.0|FL<c0+c4|FR<c1|FC<c2|BL<c3|BR<c3", has_all=False)),
        ("FL FR SL SR WL TSL", Mix("5.1", "5.1|FL<c0+c4|FR<c1|BL<c2+c5|BR<c3", has_all=False)),
    ],
)
def test_channels_go_into_the_smallest_layout_that_has_them_all(channels: str, expected: Mix) -> None:
    names = channels.split()
    assert Mix.of(names, len(names), AAC) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, Mix("stereo")),
        (1, Mix("mono")),
        (3, Mix("3.0", "3.0|FL<c0|FR<c1|FC<c2")),
        (6, Mix("5.1")),
        (8, Mix("7.1")),
        (9, Mix("stereo", "stereo|FL<c0+c2+c4+c6+c8|FR<c1+c3+c5+c7", has_all=False)),
    ],
)
def test_channels_without_names_are_taken_as_ffmpeg_does_and_many_are_heard_left_and_right(
    count: int, expected: Mix
) -> None:
    assert Mix.of((), count, AAC) == expected


def surround_clip(path: Path, layout: str, *, loud: int, codec: str = "pcm_s16le") -> Path:
    """Write a clip with sound of which one channel has a tone, by its place."""
    with av.open(str(path), "w") as target:
        video: Any = target.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = target.add_stream(codec, rate=48000, layout=layout)
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts = index
            target.mux(video.encode(frame.reformat(format="yuv420p")))
        target.mux(video.encode(None))
        samples = np.zeros((19200, av.AudioLayout(layout).nb_channels), np.int16)
        samples[:, loud] = 9000 * np.sin(np.arange(19200) * 2 * np.pi * 60 / 48000)
        heard = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
        heard.sample_rate, heard.pts = 48000, 0
        target.mux([*sound.encode(heard), *sound.encode(None)])
    return path


def loudness(path: Path) -> dict[str, float]:
    """Return the loudness of each channel of an encoded track."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        names = [channel.name for channel in stream.codec_context.layout.channels]
        packed = av.AudioResampler(format="flt")  # planes of more than seven channels end PyAV's process
        parts = [part.to_ndarray() for frame in container.decode(stream) for part in packed.resample(frame)]
    return dict(zip(names, np.abs(np.concatenate(parts, axis=1).reshape(-1, len(names))).mean(axis=0), strict=True))


@pytest.mark.parametrize("loud", ["LFE", "BC", "SR"])
def test_channels_in_the_order_of_quicktime_are_heard_where_they_belong(loud: str, tmp_path: Path) -> None:
    quicktime = ("FL", "FR", "FC", "LFE", "SL", "SR", "BC")
    source = surround_clip(tmp_path / "clip.mov", "6.1", loud=quicktime.index(loud))
    data = source.read_bytes()
    assert data.count(IN_FFMPEGS_ORDER) == 1
    source.write_bytes(data.replace(IN_FFMPEGS_ORDER, IN_QUICKTIMES_ORDER))
    with av.open(str(source)) as container:
        stream = container.streams.audio[0]
        assert take_channels(stream.codec_context) == quicktime
    notes = Notes()
    output = rewritten(source, notes=notes)
    heard = loudness(output)
    expected = {"BC": {"BL", "BR"}}.get(loud, {loud})
    assert {name for name, value in heard.items() if value > 0.02} == expected
    assert "Audio of 7 channels was mixed to 7.1: the output's codec has no layout of them all." in notes.lines
    assert [check.name for check in check_video_pair(source, output)[0] if not check.passed] == []


@pytest.mark.parametrize(("layout", "loud"), [("3.0", 2), ("12 channels", 11)])
def test_no_channel_is_lost_when_it_is_encoded_again(layout: str, loud: int, tmp_path: Path) -> None:
    output = rewritten(surround_clip(tmp_path / "clip.mkv", layout, loud=loud))
    assert max(loudness(output).values()) > 0.01
