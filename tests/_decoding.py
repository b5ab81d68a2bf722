"""Decode videos under limits, each in a process of its own; their paths come on standard input. Print what comes of it.

As a program, so that it has one thread and can fork, after everything has been imported once. Each line of its output
is a JSON object: the frames of a clip that was edited without changes, or the message of the error that refused it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import psutil

from storage.errors import VideoError
from storage.video import FrameReader, Notes, copy_audio, probe, write_video

__all__: list[str] = []

MEMORY = 3 * 2**30  # bytes of addresses, in addition to those of the libraries
SECONDS = 60  # of the processor


def decoded(path: Path, folder: Path) -> int:
    """Do with a video what an edit that changes nothing does, and return the number of frames."""
    notes = Notes()
    info = probe(path)
    reader = FrameReader(path, notes=notes)
    times, frames = list[int](), list[np.ndarray]()
    for time, frame in reader:
        times.append(time)
        frames.append(frame)
    assert times == sorted(set(times))
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((info.height, info.width, 3), "uint8")}
    audio = folder / "audio.mp4"
    has_audio = copy_audio(path, audio, extent=reader.extent, notes=notes)
    write_video(
        folder / "edited.mp4",
        frames,
        timestamps=times,
        time_base=info.time_base,
        last_duration=reader.last_duration,
        audio=audio if has_audio else None,
        notes=notes,
    )
    assert all("\n" not in line for line in notes.lines)
    return len(frames)


def outcome(path: Path, folder: Path) -> dict[str, object]:
    """Decode in a forked process, and return what became of it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        limit = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            found: dict[str, object] = {"frames": decoded(path, folder)}
        except VideoError as error:
            found = {"refused": str(error)}
        except BaseException:  # noqa: BLE001  (the child must not go on with the parent's work)
            found = {"crash": traceback.format_exc()}
        with os.fdopen(writing, "w") as stream:
            stream.write(json.dumps(found))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(said) if said else {"crash": f"ended by {signal.Signals(-code).name}"}


if __name__ == "__main__":
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as place:
            sys.stdout.write(f"{json.dumps(outcome(Path(line.strip()), Path(place)))}\n")
        sys.stdout.flush()
