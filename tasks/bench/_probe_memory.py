"""Propagate one drawn interval and tell what it took: a process, `python -m ... HEIGHT WIDTH LENGTH`."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Final

from tasks.evaluation._carrying import warm_up
from wave_ops.propagation import propagate_interval
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import random_scene

__all__ = ["main"]

_STATUS: Final = Path("/proc/self/status")
_KILOBYTES: Final = 1 if sys.platform != "darwin" else 1024
_SEED: Final = 7


def main(height: int, width: int, length: int) -> None:
    """Write peak memory before and after, in megabytes of 2^20 bytes, and the CPU seconds, as one line of JSON."""
    warm_up()
    # One sample a pixel: drawing finely would take more memory than what is measured.
    spec = random_scene(_SEED, size=(height, width), frame_count=length + 1, objects=2, hard=True)
    scene = render(replace(spec, supersampling=1))
    before, started = _peak(), process_time()
    propagate_interval(
        scene.frames,
        first=scene.frames[0][..., ::-1].copy(),
        last=scene.frames[-1][..., ::-1].copy(),
        flows_to_prev=scene.flow_to_prev,
        flows_to_cur=scene.flow_to_cur,
    )
    seconds = process_time() - started
    sys.stdout.write(json.dumps({"before": before, "peak": _peak(), "seconds": seconds}) + "\n")


def _peak() -> float:
    """Return the most memory that this process has held so far, megabytes."""
    if _STATUS.is_file():
        # Linux counts in ru_maxrss what the parent held before this program was loaded; here it does not.
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return float(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KILOBYTES / 1024


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
