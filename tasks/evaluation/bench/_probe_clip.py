"""A program that runs one stage of an edit and prints its peak memory: `python -m ... STAGE CLIP WORKSPACE BATCH`.

Each stage has a process of its own, so that its peak is not that of the stage before. STAGE is a name of the table of
stages; those before it must be complete. The clip is drawn first where STAGE is `draw`: CLIP is then where to write it,
WORKSPACE its number of seconds.
"""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from storage.video import write_video
from tasks.assess import assess_edit
from tasks.decode import decode_clip
from tasks.edit import edit_keyframes
from tasks.encode import encode_edit
from tasks.flow import estimate_frame_flow, estimate_keyframe_flow
from tasks.invert import invert_keyframes
from tasks.peak_memory import peak_memory
from tasks.planning.plan import Execution
from tasks.planning.prepare import prepare_edit
from tasks.planning.request import edit_request
from tasks.run_stages import run_propagation

__all__ = ["main"]

_SIZE: Final = (720, 1280)
_RATE: Final = 25
_STAGES: Final = {
    each.spec.name: each.run
    for each in (
        decode_clip,
        estimate_frame_flow,
        estimate_keyframe_flow,
        invert_keyframes,
        edit_keyframes,
        encode_edit,
        assess_edit,
    )
} | {"propagate": run_propagation}


def main(stage: str, clip: str, place: str, batch: str) -> None:
    """Print the peak memory as one line of JSON, in megabytes of 2^20 bytes."""
    if stage == "draw":
        _draw(Path(clip), seconds=int(place))
    else:
        request = edit_request(video=clip, prompt="a blue star", source_prompt="a red star", steps=2)
        execution = Execution(workspace=place, keyframe_batch=int(batch))
        _STAGES[stage](prepare_edit(request, execution=execution))
    sys.stdout.write(json.dumps({"peak": peak_memory()}) + "\n")


def _draw(path: Path, *, seconds: int) -> None:
    """Write a clip of a pattern that moves, of which every frame differs."""
    y, x = np.mgrid[: _SIZE[0], : _SIZE[1]]
    pattern = np.stack([x // 5 % 256, y // 3 % 256, (x + y) // 8 % 256], axis=-1).astype(np.uint8)
    frames = seconds * _RATE
    pictures = (np.roll(pattern, 3 * index, axis=1) for index in range(frames))
    write_video(path, pictures, timestamps=range(frames), time_base=Fraction(1, _RATE))


if __name__ == "__main__":
    main(*sys.argv[1:5])
