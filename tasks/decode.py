"""Decode: a video file becomes frames, timestamps, cuts and an audio track in the workspace."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.digest import digest_file_once
from storage.limits import using_limits
from storage.video import FrameReader, Notes, VideoInfo, copy_audio, probe, source_tags
from storage.workspace import open_artifact
from tasks.artifacts import AUDIO, require_pictures
from tasks.errors import TaskInputError
from tasks.planning.batches import Job
from tasks.planning.decoded_facts import remember_decoded_facts
from tasks.planning.input_video import local_video, packing_notes
from tasks.planning.stages import DECODE
from tasks.progress import StageProgress, stage_progress
from tasks.stage import measured, stage_task
from wave_ops.shot_detection import detect_cuts

__all__ = ["decode_clip"]

_LOG = logging.getLogger(__name__)


@stage_task(DECODE)
def decode_clip(job: Job) -> None:
    """Store the clip's frames at their own size, and find its cuts."""
    plan = job.plan
    artifact = open_artifact(plan[DECODE].ref)
    request = plan.request
    with (
        measured() as cost,
        using_limits(plan.execution.limits),
        local_video(request.video, rate=request.picture_rate) as path,
    ):
        if digest_file_once(path) != plan.clip.digest:
            raise TaskInputError(f"The clip {plan.clip.name} changed after the edit was planned: start again.")
        info, notes = probe(path), Notes()
        settings = plan[DECODE].settings
        reader = FrameReader(path, deinterlace=settings.deinterlace, trim=settings.trim, notes=notes)
        count = settings.trim.count(info.frame_count, float(info.rate))
        with stage_progress(plan[DECODE], total=count) as progress:
            frames = _StoringFrames(artifact, info, progress, count=count)
            cuts = detect_cuts(frames.read(reader))
        timestamps = frames.finish()
        has_audio = _store_audio(artifact, path, reader, notes)
        tags = source_tags(path)
        notes.tags_left_out(tags.others)
        _LOG.info("Decoded %d frames, %dx%d, shots: %d", len(timestamps), info.width, info.height, len(cuts) + 1)
        found = {
            "frame_count": len(timestamps),
            "cuts": cuts,
            "has_audio": has_audio,
            "last_duration": reader.last_duration,
            "title": tags.title,
            "creation_time": tags.creation_time,
            "notes": [*packing_notes(path), *notes.lines],
        }
        artifact.complete(_metadata(info) | found | cost())
        remember_decoded_facts(plan[DECODE].ref, frame_count=len(timestamps), cuts=cuts)


def _store_audio(artifact: Artifact, path: Path, reader: FrameReader, notes: Notes) -> bool:
    """Store the clip's audio, after its frames were read, and return whether there is any."""
    with tempfile.TemporaryDirectory(prefix="wave-") as folder:
        audio = Path(folder) / AUDIO
        if not copy_audio(path, audio, extent=reader.extent, notes=notes):
            return False
        with artifact.local_output(AUDIO) as target:
            shutil.copyfile(audio, target)
    return True


class _StoringFrames:
    """Stores frames as they are read from the file and passes them on."""

    def __init__(self, artifact: Artifact, info: VideoInfo, progress: StageProgress, *, count: int) -> None:
        self._artifact, self._progress = artifact, progress
        self._timestamps: list[int] = []
        self._length = max(count, 1)
        require_pictures(artifact, (self._length, info.height, info.width, 3), axis="time")
        self._writer = artifact.row_writer("frames")

    def read(self, pairs: Iterable[tuple[int, NDArray[np.uint8]]]) -> Iterator[NDArray[np.uint8]]:
        for index, (timestamp, frame) in enumerate(pairs):
            if index >= self._length:  # the container promised fewer
                self._length = 2 * index
                self._artifact.resize_array("frames", self._length)
            self._writer.append(frame)
            self._timestamps.append(timestamp)
            self._progress.report(min(index + 1, self._progress.total))
            yield frame

    def finish(self) -> list[int]:
        """Shorten the array to the frames that were read, and store the timestamps."""
        count = len(self._timestamps)
        if count != self._length:
            self._artifact.resize_array("frames", count)
        self._writer.flush()
        self._artifact.require_array(
            "timestamps", shape=(count,), chunks=(count,), dtype="int64", dimension_names=("time",)
        )
        self._artifact.write_region("timestamps", 0, np.asarray(self._timestamps, np.int64))
        return self._timestamps


def _metadata(info: VideoInfo) -> dict[str, object]:
    return {
        "height": info.height,
        "width": info.width,
        "rate": str(info.rate),
        "time_base": str(info.time_base),
        "pixel_aspect": str(info.pixel_aspect),
    }
