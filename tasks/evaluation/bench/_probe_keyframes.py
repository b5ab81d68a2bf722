"""A program that edits random keyframes with the tiny model: `python -m ... KEYFRAMES BATCH SIDE STEPS`.

As in the stages, frames pass through the VAE a few at a time, and the latents of every step are on disk.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tasks.evaluation.bench._random_models import random_model
from tasks.evaluation.bench._whole_stages import Run
from tasks.peak_memory import peak_memory
from wave_ops.diffusion import batch_slices, decode_latents, encode_frames

__all__ = ["main"]

_FRAMES: Final = 4
"""Frames that pass through the VAE together."""


def main(keyframes: int, batch: int, side: int, steps: int) -> None:
    """Print peak memory before and after, in megabytes of 2^20 bytes, and CPU seconds, as one line of JSON.

    Args:
        keyframes: how many are inverted and edited together.
        batch: keyframes in one UNet call.
        side: height and width of the latents.
        steps: of the inversion, and of the edit.
    """
    model = random_model("tiny")
    _edit(Run(model=model, keyframes=1, side=side, steps=1))  # what is allocated once, by the first call
    before, started = peak_memory(), process_time()
    _edit(Run(model=model, keyframes=keyframes, side=side, steps=steps, keyframe_batch=batch))
    seconds = process_time() - started
    sys.stdout.write(json.dumps({"before": before, "peak": peak_memory(), "seconds": seconds}) + "\n")


class _StoredSteps:
    """Latents of all steps, each in a file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._count = folder, 0

    def append(self, x: Tensor, /) -> None:
        np.save(self._file(self._count), x.numpy(), allow_pickle=False)
        self._count += 1

    def __getitem__(self, step_index: int, /) -> Tensor:
        return torch.from_numpy(np.load(self._file(step_index), allow_pickle=False))

    def _file(self, step_index: int) -> Path:
        return self._folder / f"{step_index}.npy"


def _edit(run: Run) -> None:
    """Encode, invert, edit and decode."""
    pixels, warps = run.side * run.model.vae_factor, run.warps()
    parts = [
        encode_frames(run.model, np.zeros((part.stop - part.start, pixels, pixels, 3), np.uint8))
        for part in batch_slices(run.keyframes, _FRAMES)
    ]
    with TemporaryDirectory(prefix="wave-bench-") as place:
        inverted, edited = (_StoredSteps(Path(place, name)) for name in ("inverted", "edited"))
        run.invert(torch.cat(parts), warps, trajectory=inverted)
        for latents in run.edit(inverted, warps, copies=edited).split(_FRAMES):
            decode_latents(run.model, latents)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
