"""A program that edits random keyframes with the tiny model: `python -m ... KEYFRAMES BATCH SIDE STEPS`."""

from __future__ import annotations

import json
import sys
from time import process_time

from tasks.evaluation.bench._random_models import random_model
from tasks.evaluation.bench._whole_stages import Run
from tasks.peak_memory import peak_memory

__all__ = ["main"]


def main(keyframes: int, batch: int, side: int, steps: int) -> None:
    """Print peak memory before and after, in megabytes of 2^20 bytes, and CPU seconds, as one line of JSON.

    Args:
        keyframes: how many are inverted and edited together.
        batch: keyframes in one UNet call.
        side: height and width of the latents.
        steps: of the inversion, and of the edit.
    """
    model = random_model("tiny")
    Run(model=model, keyframes=1, side=side, steps=1)()  # what is allocated once, by the first call
    before, started = peak_memory(), process_time()
    Run(model=model, keyframes=keyframes, side=side, steps=steps, keyframe_batch=batch)()
    seconds = process_time() - started
    sys.stdout.write(json.dumps({"before": before, "peak": peak_memory(), "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
