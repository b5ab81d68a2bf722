"""A program that propagates one drawn interval and prints memory and seconds: `python -m ... HEIGHT WIDTH LENGTH`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from time import process_time
from typing import Final

from tasks.evaluation.comparisons.propagation_baselines import warm_up
from tasks.peak_memory import peak_memory
from wave_ops.propagation import propagate_interval
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import random_scene

__all__ = ["main"]

_SEED: Final = 7


def main(height: int, width: int, length: int) -> None:
    """Print peak memory before and after, in megabytes of 2^20 bytes, and CPU seconds, as one line of JSON."""
    warm_up()
    # One sample per pixel: supersampling would take more memory than propagation
    spec = random_scene(_SEED, size=(height, width), frame_count=length + 1, objects=2, hard=True)
    scene = render(replace(spec, supersampling=1))
    before, started = peak_memory(), process_time()
    propagate_interval(
        scene.frames,
        first=scene.frames[0][..., ::-1].copy(),
        last=scene.frames[-1][..., ::-1].copy(),
        flows_to_prev=scene.flow_to_prev,
        flows_to_cur=scene.flow_to_cur,
    )
    seconds = process_time() - started
    sys.stdout.write(json.dumps({"before": before, "peak": peak_memory(), "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
