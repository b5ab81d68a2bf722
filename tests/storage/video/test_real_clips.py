"""Real clips, where they are present."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from storage.video import FrameReader, Notes, probe, read_audio, read_frames, write_video

CLIPS = Path(__file__).parents[3].parent / "shared" / "clips"


@pytest.mark.parametrize("name", [pytest.param("bigbuckbunny.mp4", marks=pytest.mark.slow), "carphone_pristine.mp4"])
def test_a_real_clip_keeps_frames_times_duration_and_audio_when_rewritten(name: str, tmp_path: Path) -> None:
    source, target = CLIPS / name, tmp_path / name
    if not source.exists():
        pytest.skip("the clip is not there")
    before, notes = probe(source), Notes()
    reader = FrameReader(source, notes=notes)
    times = [time for time, _ in reader]
    write_video(
        target,
        (frame for _, frame in read_frames(source)),
        timestamps=times,
        time_base=before.time_base,
        last_duration=reader.last_duration,
        audio=read_audio(source, extent=reader.extent, notes=notes),
        pixel_aspect=before.pixel_aspect,
        notes=notes,
    )
    assert notes.lines == []
    assert probe(target) == before
    with av.open(str(source)) as old, av.open(str(target)) as new:
        assert new.duration == old.duration
        assert len(new.streams.audio) == len(old.streams.audio)
    for (old_time, old_frame), (new_time, new_frame) in zip(read_frames(source), read_frames(target), strict=True):
        assert new_time == old_time
        assert np.abs(new_frame.astype(int) - old_frame).mean() < 4
