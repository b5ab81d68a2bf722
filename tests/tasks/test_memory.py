"""Peak memory of the stages that read or write every frame of a clip, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from storage.video import write_video

STAGES = """
import json, resource, sys
from pathlib import Path
from tasks.decode import decode_clip
from tasks.planning.request import edit_request
from tests._stages import make_plan
plan = make_plan(edit_request(video=sys.argv[1], prompt="x", model=sys.argv[3]), Path(sys.argv[2]))
decode_clip.run(plan)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10))
"""
SIZE = (720, 1280)
LIMIT = 2 * 2**10  # MiB


def drawn(path: Path, *, frames: int) -> Path:
    """Write a clip of a moving pattern, of which every frame differs."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    pattern = np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype(np.uint8)
    pictures = (np.roll(pattern, 3 * index, axis=1) for index in range(frames))
    write_video(path, pictures, timestamps=range(frames), time_base=Fraction(1, 25))
    return path


def peak(clip: Path, workspace: Path, model: Path) -> float:
    """Return the peak memory of a process that decodes a clip into a workspace, MiB."""
    command = [sys.executable, "-c", STAGES, str(clip), str(workspace), str(model)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_decoding_takes_no_more_memory_for_a_longer_clip(sd15: Path, tmp_path: Path) -> None:
    peaks = [
        peak(drawn(tmp_path / f"{frames}.mp4", frames=frames), tmp_path / f"w{frames}", sd15) for frames in (50, 150)
    ]
    print(peaks)  # noqa: T201
    # 100 frames more are 264 MiB
    assert peaks[1] < peaks[0] + 80
    assert max(peaks) < LIMIT
