"""Small clips for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from storage.video import write_video
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import random_scene

__all__ = ["save_clip"]


def save_clip(path: Path, *, frames: int = 7, size: tuple[int, int] = (48, 64), seed: int = 3) -> Path:
    """Draw a scene and save it at 12 frames per second, the fourth frame shown for twice as long."""
    scene = render(random_scene(seed, size=size, frame_count=frames))
    timestamps = [i + (i > 3) for i in range(frames)]
    write_video(path, scene.frames, timestamps=timestamps, time_base=Fraction(1, 12))
    return path
