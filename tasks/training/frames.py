"""Frames that the embedded model is trained on, drawn once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor

from tasks.training.files import load_tensors, save_tensors
from wave_ops.scenes.sampling import is_hard, random_frame
from wave_ops.scenes.vocabulary import names_held_out_pair
from wave_ops.training.modules import SAMPLE_SIZE

__all__ = ["draw_frames", "load_frames", "trained_frames"]

_PER_FILE: Final = 2_000
_SEEDS_APART: Final = 1_000_000


@task(name="Draw training frames", cache_policy=NO_CACHE, persist_result=False)
def draw_frames(work_folder: str, *, count: int, seed: int) -> str:
    """Draw frames with captions into the files of a folder; files that exist already are not drawn again.

    Args:
        work_folder: folder in which the folder `frames` is created.
        count: number of frames.
        seed: seed of the scenes.

    Returns:
        The folder of the frames.
    """
    folder = Path(work_folder) / "frames"
    for first in range(0, count, _PER_FILE):
        path = folder / f"{seed}_{first:07d}_{min(_PER_FILE, count - first)}.safetensors"
        if not path.exists():
            start = seed * _SEEDS_APART + first
            drawn = [
                random_frame(start + i, size=(SAMPLE_SIZE, SAMPLE_SIZE)) for i in range(min(_PER_FILE, count - first))
            ]
            frames = torch.from_numpy(np.stack([frame for frame, _ in drawn]))
            hard = [is_hard(start + i) for i in range(len(drawn))]
            save_tensors(path, {"frames": frames}, facts={"captions": [caption for _, caption in drawn], "hard": hard})
    return str(folder)


def load_frames(folder: str) -> tuple[Tensor, dict[str, list[Any]]]:
    """Load all frames of a folder.

    Returns:
        Frames, uint8 (frame, height, width, 3), and two lists with an item for each: `captions`, and `hard`, which is
        true for a frame of a hard scene.
    """
    frames: list[Tensor] = []
    known: dict[str, list[Any]] = {"captions": [], "hard": []}
    for path in sorted(Path(folder).glob("*.safetensors")):
        tensors, facts = load_tensors(path)
        frames.append(tensors["frames"])
        for name, values in known.items():
            values.extend(facts[name])  # type: ignore[arg-type]
    return torch.cat(frames), known


def trained_frames(captions: Sequence[str]) -> Tensor:
    """Return the indices of the frames with these captions that a training sees: those without a held-out pair."""
    return torch.tensor([index for index, caption in enumerate(captions) if not names_held_out_pair(caption)])
