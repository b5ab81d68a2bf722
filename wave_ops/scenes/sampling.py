"""Single frames with captions and edges: what the embedded model learns from."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from wave_ops.scenes.rendering import render_frame
from wave_ops.scenes.specs import random_scene

__all__ = ["random_frame"]

_TWO_OBJECTS_EVERY: Final = 10


def random_frame(seed: int, *, size: tuple[int, int] = (64, 64)) -> tuple[npt.NDArray[np.uint8], str]:
    """A frame at a random point of a calm random scene, and its caption; every tenth scene has two objects."""
    spec = random_scene(seed, size=size, objects=2 if seed % _TWO_OBJECTS_EVERY == 0 else 1)
    progress = float(np.random.default_rng((seed, 1)).random())
    return render_frame(spec, progress), spec.caption
