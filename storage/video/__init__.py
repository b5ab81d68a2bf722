"""Reading and writing of video files: upright RGB frames, exact timestamps, audio copied without decoding."""

from __future__ import annotations

from storage.video._audio import read_audio
from storage.video._decode import VideoInfo, final_duration, probe, read_frames
from storage.video._encode import write_video

__all__ = ["VideoInfo", "final_duration", "probe", "read_audio", "read_frames", "write_video"]
