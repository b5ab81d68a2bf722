"""The pictures that the embedded model learns from, drawn once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor

from tasks.training.files import load_tensors, save_tensors
from wave_ops.scenes.sampling import is_hard, random_frame
from wave_ops.training.modules import SAMPLE_SIZE

__all__ = ["draw_frames", "load_frames"]

_PER_FILE: Final = 2_000
_SEEDS_APART: Final = 1_000_000


@task(name="Draw training frames", cache_policy=NO_CACHE, persist_result=False)
def draw_frames(work_folder: str, *, count: int, seed: int) -> str:
    """Draw frames with captions into files of a folder; what is there already is kept. Returns the folder."""
    folder = Path(work_folder) / "frames"
    for first in range(0, count, _PER_FILE):
        path = folder / f"{seed}_{first:07d}_{min(_PER_FILE, count - first)}.safetensors"
        if not path.exists():
            start = seed * _SEEDS_APART + first
            drawn = [
                random_frame(start + i, size=(SAMPLE_SIZE, SAMPLE_SIZE)) for i in range(min(_PER_FILE, count - first))
            ]
            pictures = torch.from_numpy(np.stack([picture for picture, _ in drawn]))
            hard = [is_hard(start + i) for i in range(len(drawn))]
            save_tensors(path, {"frames": pictures}, facts={"captions": [text for _, text in drawn], "hard": hard})
    return str(folder)


def load_frames(folder: str) -> tuple[Tensor, dict[str, list[Any]]]:
    """All frames of a folder, uint8 (frame, height, width, 3), and of each its `captions` and whether it is `hard`."""
    frames: list[Tensor] = []
    known: dict[str, list[Any]] = {"captions": [], "hard": []}
    for path in sorted(Path(folder).glob("*.safetensors")):
        tensors, facts = load_tensors(path)
        frames.append(tensors["frames"])
        for name, values in known.items():
            values.extend(facts[name])  # type: ignore[arg-type]
    return torch.cat(frames), known
