"""Errors of FFmpeg in the middle of copying audio: packets, streams or nothing is left out, and the disk is named."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import av.error
import numpy as np
import pytest

from storage.video import Notes, copy_audio
from storage.video import _audio as audio_module
from storage.video._audio import _Lanes
from storage.video._audio_lanes import EncodeLane
from storage.video._check import _count_damaged

MakeClip = Callable[..., Path]
DAMAGE = av.error.InvalidDataError(1, "damaged")


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.fixture
def sounding(make_clip: MakeClip) -> Path:
    return make_clip([np.zeros((48, 64, 3), np.uint8)] * 25, tones=[440.0])


def test_packets_that_a_lane_cannot_take_are_counted_and_left_out() -> None:
    notes, written = Notes(), list[object]()
    lane: Any = SimpleNamespace(packets=raising(DAMAGE), damaged=2)
    lanes = _Lanes({3: lane}, SimpleNamespace(mux=written.append), notes)
    lanes.write(SimpleNamespace(stream_index=3))
    lanes.finish()
    assert written == []
    assert [line for line in notes.lines if "4" in line]


@pytest.mark.parametrize(("fails", "line"), [(1, "AAC"), (2, "a damaged stream")])
def test_audio_that_cannot_be_copied_to_its_end_is_encoded_and_then_left_out(
    fails: int, line: str, sounding: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, made, lanes = Notes(), list[object](), audio_module._lanes

    def failing(*arguments: Any, **options: Any) -> _Lanes:
        made.append(options)
        if len(made) <= fails:
            raise DAMAGE
        return lanes(*arguments, **options)

    monkeypatch.setattr(audio_module, "_lanes", failing)
    assert copy_audio(sounding, sounding.with_name("audio.mp4"), notes=notes) == (fails == 1)
    assert any(line in each for each in notes.lines)


def test_a_full_disk_is_an_error_and_no_damage_of_audio(sounding: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full: Any = type("Full", (av.error.FFmpegError, OSError), {})(errno.ENOSPC, "no space")
    monkeypatch.setattr(audio_module, "_lanes", raising(full))
    with pytest.raises(OSError, match="no space"):
        copy_audio(sounding, sounding.with_name("audio.mp4"))


@pytest.mark.parametrize(("error", "damaged"), [(DAMAGE, 1), (av.error.EOFError(1, "end"), 0)])
def test_a_packet_that_cannot_be_decoded_gives_no_frames(error: Exception, damaged: int) -> None:
    lane: Any = object.__new__(EncodeLane)
    lane._codec, lane.damaged = SimpleNamespace(decode=raising(error)), 0
    assert lane._decoded(object()) == []
    assert lane.damaged == damaged


def test_packets_of_a_track_that_cannot_be_decoded_are_counted(tmp_path: Path, make_clip: MakeClip) -> None:
    whole = make_clip([np.zeros((48, 64, 3), np.uint8)] * 25, tones=[440.0], name="whole.mkv", audio_codec="flac")
    path = tmp_path / "damaged.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for number, packet in enumerate(source.demux()):
            if packet.dts is None:
                continue
            made = packet
            if packet.stream.type == "audio" and number % 3 == 0:
                made = av.Packet(b"\1" * 40)
                made.pts = made.dts = packet.pts
                made.time_base = packet.time_base
            made.stream = streams[packet.stream.index]
            target.mux(made)
    track: Any = SimpleNamespace(index=1)
    assert _count_damaged(SimpleNamespace(path=path), track) > 0  # type: ignore[arg-type]
    assert _count_damaged(SimpleNamespace(path=whole), track) == 0  # type: ignore[arg-type]
