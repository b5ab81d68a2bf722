"""Single frames with captions and edges: what the embedded model learns from."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from wave_ops.scenes.rendering import render_frame
from wave_ops.scenes.specs import random_scene

__all__ = ["HELD_OUT_SEED", "is_hard", "random_frame"]

HELD_OUT_SEED: Final = 1_000_000_000
"""Scenes from this seed on are never trained on."""

_TWO_OBJECTS_EVERY: Final = 5
_HARD_EVERY: Final = 3


def random_frame(seed: int, *, size: tuple[int, int] = (128, 128)) -> tuple[npt.NDArray[np.uint8], str]:
    """A frame at a random point of a random scene, and its caption.

    Every fifth scene has two objects; every third is a hard one, whose objects turn freely, shrink and leave.
    """
    spec = random_scene(seed, size=size, objects=2 if seed % _TWO_OBJECTS_EVERY == 0 else 1, hard=is_hard(seed))
    progress = float(np.random.default_rng((seed, 1)).random())
    return render_frame(spec, progress), spec.caption


def is_hard(seed: int) -> bool:
    """Whether the scene of a seed is a hard one."""
    return seed % _HARD_EVERY == 0
