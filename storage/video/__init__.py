"""Reading and writing of video files: upright RGB frames, exact timestamps, audio copied without decoding."""

from __future__ import annotations

from storage.video._audio import copy_audio, read_audio
from storage.video._check import VideoCheck, check_video_pair
from storage.video._decode import FrameReader, VideoInfo, probe, read_frames
from storage.video._deinterlace import DEINTERLACING
from storage.video._encode import write_video
from storage.video._formats import (
    CONTAINERS,
    Encoding,
    SourceEncoding,
    choose_encoding,
    encoding_like,
    source_encoding,
)
from storage.video._labels import DIGITAL_SOURCE_TYPE, Labels, source_tags
from storage.video._notes import Notes
from storage.video._pictures import PICTURE_TIMES
from storage.video._sequence import pack_pictures
from storage.video._timing import Extent
from storage.video._trim import Trim

__all__ = [
    "CONTAINERS",
    "DEINTERLACING",
    "DIGITAL_SOURCE_TYPE",
    "PICTURE_TIMES",
    "Encoding",
    "Extent",
    "FrameReader",
    "Labels",
    "Notes",
    "SourceEncoding",
    "Trim",
    "VideoCheck",
    "VideoInfo",
    "check_video_pair",
    "choose_encoding",
    "copy_audio",
    "encoding_like",
    "pack_pictures",
    "probe",
    "read_audio",
    "read_frames",
    "source_encoding",
    "source_tags",
    "write_video",
]
