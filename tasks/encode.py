"""Encode: write the edited frames as a video of the source's size, timing and audio."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.video import Notes, write_video
from storage.workspace import open_artifact
from tasks.artifacts import AUDIO, EDITED, stream_frames, stream_shots
from tasks.planning.batches import Job
from tasks.planning.plan import EditPlan
from tasks.planning.stages import DECODE, ENCODE, PROPAGATE
from tasks.progress import counted, stage_progress
from tasks.stage import measured, stage_task
from wave_ops.guided_upsampling import upsample_edit

__all__ = ["encode_edit", "finished_frames", "write_like"]


@stage_task(ENCODE)
def encode_edit(job: Job) -> None:
    """Write the edited frames of all shots as one video, frame by frame."""
    plan = job.plan
    artifact, source = open_artifact(plan[ENCODE].ref), open_artifact(plan[DECODE].ref)
    with measured() as cost, stage_progress(plan[ENCODE], total=plan.clip.frame_count) as progress:
        with artifact.local_output(EDITED) as path:
            notes = write_like(source, path, counted(finished_frames(plan, source, size=plan.clip.size), progress))
        artifact.complete({"notes": notes, **cost()})


def finished_frames(plan: EditPlan, source: Artifact, *, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Read the edited frames one by one at a size: guided by the source's frames if the plan says so, else resized."""
    if not plan[ENCODE].settings.full_resolution:
        return stream_shots(plan, PROPAGATE, plan.frames, size=size)
    return map(upsample_edit, stream_frames(source, plan.frames, size=size), stream_shots(plan, PROPAGATE, plan.frames))


def write_like(source: Artifact, path: Path, frames: Iterable[NDArray[np.uint8]], *, crf: int = 16) -> list[str]:
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
            crf=crf,
            pixel_aspect=Fraction(found["pixel_aspect"]),
            notes=notes,
        )
    return notes.lines
