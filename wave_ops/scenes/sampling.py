"""Random frames with captions, for training the embedded model."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import UInt8

from wave_ops.scenes.rendering import render_frame
from wave_ops.scenes.specs import random_scene

__all__ = ["HELD_OUT_SEED", "is_hard", "random_frame"]

HELD_OUT_SEED: Final = 1_000_000_000
"""First seed of the scenes that are never used in training."""

_TWO_OBJECTS_EVERY: Final = 5
_HARD_EVERY: Final = 3


def random_frame(seed: int, *, size: tuple[int, int] = (128, 128)) -> tuple[UInt8[np.ndarray, "height width 3"], str]:
    """Render a frame at a random time of a random scene, and return it with its caption.

    Every fifth scene has two objects; every third is hard (see `random_scene`).
    """
    spec = random_scene(seed, size=size, objects=2 if seed % _TWO_OBJECTS_EVERY == 0 else 1, hard=is_hard(seed))
    progress = float(np.random.default_rng((seed, 1)).random())
    return render_frame(spec, progress), spec.caption


def is_hard(seed: int) -> bool:
    """Return whether `random_frame` draws a hard scene for a seed."""
    return seed % _HARD_EVERY == 0
