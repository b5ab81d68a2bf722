"""Encode: write the edited frames as a video of the source's size, timing and audio."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.video import Encoding, Notes, write_video
from storage.workspace import open_artifact
from tasks.artifacts import AUDIO, planned_name, stream_frames, stream_shots
from tasks.planning.batches import Job
from tasks.planning.plan import EditPlan
from tasks.planning.stages import DECODE, ENCODE, PROPAGATE
from tasks.progress import counted, stage_progress
from tasks.provenance import labels_of
from tasks.stage import measured, stage_task
from wave_ops.guided_upsampling import upsample_edit

__all__ = ["encode_edit", "finished_frames", "write_like"]


@stage_task(ENCODE)
def encode_edit(job: Job) -> None:
    """Write the edited frames of all shots as one video, frame by frame."""
    plan = job.plan
    artifact, source = open_artifact(plan[ENCODE].ref), open_artifact(plan[DECODE].ref)
    with measured() as cost, stage_progress(plan[ENCODE], total=plan.clip.frame_count) as progress:
        encoding, frames = plan[ENCODE].settings.encoding, finished_frames(plan, source, size=plan.clip.size)
        with artifact.local_output(planned_name(plan)) as path:
            notes = write_like(plan, source, path, counted(frames, progress), encoding=encoding)
        artifact.complete({"notes": [*_unlike(plan), *notes], **cost()})


def _unlike(plan: EditPlan) -> list[str]:
    """Return a note on what is not encoded as in the source, where that was asked for."""
    notes, encoding, source = Notes(), plan[ENCODE].settings.encoding, plan.clip.encoded
    wanted = {
        "codec": (source.codec, encoding.codec),
        "pixel format": (source.pixel_format.replace("yuvj", "yuv"), encoding.pixel_format),
    }
    names = [name for name, (own, written) in wanted.items() if own != written]
    if plan.request.like_source and names:
        notes.encoded_unlike(names)
    return notes.lines


def finished_frames(plan: EditPlan, source: Artifact, *, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Read the edited frames one by one at a size: guided by the source's frames if the plan says so, else resized."""
    if not plan[ENCODE].settings.full_resolution:
        return stream_shots(plan, PROPAGATE, plan.frames, size=size)
    return map(upsample_edit, stream_frames(source, plan.frames, size=size), stream_shots(plan, PROPAGATE, plan.frames))


def write_like(
    plan: EditPlan, source: Artifact, path: Path, frames: Iterable[NDArray[np.uint8]], *, encoding: Encoding
) -> list[str]:
    """Write frames with the timestamps and the audio of a decoded clip, and return notes on what the file lacks."""
    found, notes = source.metadata, Notes()
    with contextlib.ExitStack() as stack:
        audio = stack.enter_context(source.local_copy(AUDIO)) if found["has_audio"] else None
        write_video(
            path,
            frames,
            timestamps=source.read_region("timestamps").tolist(),
            time_base=Fraction(found["time_base"]),
            last_duration=found["last_duration"],
            audio=audio,
            encoding=encoding,
            labels=labels_of(plan, found),
            pixel_aspect=Fraction(found["pixel_aspect"]),
            notes=notes,
        )
    return notes.lines
