"""A program that measures the memory of one step of an edit: `python -m ... SIDE KEYFRAMES BATCH`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil

from tasks.evaluation.bench._random_models import random_model
from tasks.evaluation.bench._whole_stages import Run
from tasks.peak_memory import peak_memory

__all__ = ["main"]

_RESET = Path("/proc/self/clear_refs")


def main(side: int, keyframes: int, batch: int) -> None:
    """Print the memory before, and the peak of one step, in megabytes of 2^20 bytes, as one line of JSON.

    Args:
        side: height and width of the latents; up to 16 the tiny model is used, else the one of half width.
        keyframes: that are edited together.
        batch: keyframes in one UNet call.
    """
    model = random_model("tiny" if side <= 16 else "half")
    small = Run(model=model, keyframes=2, side=8, steps=1)  # what is allocated once, by the first call
    small.edit([small.latents()] * 2, small.warps())
    run = Run(model=model, keyframes=keyframes, side=side, steps=1, keyframe_batch=batch, injection_fraction=1.0)
    latents, warps = run.latents(), run.warps()
    _forget_peak()
    before = psutil.Process().memory_info().rss / 2**20
    run.edit([latents] * 2, warps)
    sys.stdout.write(json.dumps({"before": before, "peak": peak_memory()}) + "\n")


def _forget_peak() -> None:
    """Let Linux measure the peak from now on; elsewhere it may be that of loading."""
    if _RESET.exists():
        _RESET.write_text("5", encoding="ascii")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
