"""Scenes for benchmarks: textured and moving, with the true recolouring and the true flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wave_ops.propagation import KeyframeInterval
from wave_ops.scenes.rendering import Scene, render, render_frame
from wave_ops.scenes.specs import edit_spec, random_scene
from wave_ops.scenes.vocabulary import COLOURS

__all__ = ["Recoloured", "drawn_interval", "recoloured_scenes"]

Frames = NDArray[np.uint8]

_SEEDS: Final = {"calm": 3, "hard": 7}


class Recoloured(NamedTuple):
    """A scene, and its frames after a perfect edit."""

    scene: Scene
    edited: Frames


def recoloured_scenes(frame_count: int, size: tuple[int, int]) -> Mapping[str, Recoloured]:
    """Draw a calm and a hard scene of two objects, each unedited and with one object and the background recoloured."""
    return {name: _recoloured(seed, frame_count, size, hard=name == "hard") for name, seed in _SEEDS.items()}


def drawn_interval(length: int, size: tuple[int, int]) -> tuple[KeyframeInterval, Frames]:
    """Draw the hard scene as one interval with its true flow, and its frames after a perfect edit.

    Args:
        length: frames from keyframe to keyframe.
        size: height and width, pixels.
    """
    scene, edited = _recoloured(_SEEDS["hard"], length + 1, size, hard=True)
    interval = KeyframeInterval(
        frames=scene.frames, first=edited[0], last=edited[-1], to_prev=scene.flow_to_prev, to_cur=scene.flow_to_cur
    )
    return interval, edited


def _recoloured(seed: int, frame_count: int, size: tuple[int, int], *, hard: bool) -> Recoloured:
    spec = random_scene(seed, size=size, frame_count=frame_count, objects=2, hard=hard)
    taken = {spec.background.colour, *(item.colour for item in spec.objects)}
    colour, ground, *_ = (name for name in COLOURS if name not in taken)
    changed = edit_spec(spec, colour=colour, background_colour=ground)
    edited = np.stack([render_frame(changed, changed.progress(i)) for i in range(frame_count)])
    return Recoloured(render(spec), edited)
