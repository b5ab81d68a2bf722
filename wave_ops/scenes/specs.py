"""Specifications of scenes: frozen values, drawn from a seed and edited by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from wave_ops.errors import WaveOpsError
from wave_ops.scenes.geometry import Motion, Pose
from wave_ops.scenes.vocabulary import COLOURS, SHAPES, TEXTURES, Colour, Shape, Texture, caption_of

__all__ = ["Background", "SceneObject", "SceneSpec", "edit_spec", "random_scene"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """A moving shape; the scale of its pose is its radius in short sides of the frame."""

    shape: Shape
    colour: Colour
    texture: Texture
    motion: Motion
    period: float = 0.8
    """Period of the texture, in radii."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """The surface behind the objects; its pose pans it."""

    colour: Colour
    texture: Texture
    motion: Motion
    period: float = 0.25
    """Period of the texture, in short sides of the frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpec:
    """Input of `render`; later objects are in front of earlier ones.

    Raises:
        WaveOpsError: if the size, the number of frames, or the supersampling is not positive.
    """

    objects: tuple[SceneObject, ...]
    background: Background
    size: tuple[int, int] = (64, 64)
    """Height and width in pixels."""
    frame_count: int = 16
    supersampling: int = 4
    """Samples along each side of a pixel."""

    def __post_init__(self) -> None:
        if min(*self.size, self.frame_count, self.supersampling) < 1:
            raise WaveOpsError(
                "a scene needs at least one pixel, one frame and one sample per pixel, got "
                f"size {self.size}, {self.frame_count} frames, supersampling {self.supersampling}"
            )

    @property
    def caption(self) -> str:
        """Caption of the scene."""
        return caption_of(
            [(item.colour, item.shape) for item in self.objects],
            background_colour=self.background.colour,
            background_texture=self.background.texture,
        )

    def progress(self, frame_index: int) -> float:
        """Return the fraction of the clip at a frame, 0 at the first and 1 at the last."""
        return frame_index / max(self.frame_count - 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranges:
    """Ranges of a random scene's motions: the largest change over the clip of each part of a pose.

    Distances are in short sides, angles in radians, zooms are factors.
    """

    travel: float
    turn: float
    zoom: float
    pan: float
    background_turn: float
    background_zoom: float
    upright: float
    """Largest angle of an object in the first frame."""


_CALM: Final = _Ranges(travel=0.3, turn=0.5, zoom=1.15, pan=0.25, background_turn=0.0, background_zoom=1.0, upright=0.3)
_HARD: Final = _Ranges(travel=0.9, turn=2.5, zoom=1.6, pan=0.8, background_turn=0.5, background_zoom=1.3, upright=np.pi)


def random_scene(
    seed: int,
    *,
    size: tuple[int, int] = (64, 64),
    frame_count: int = 16,
    objects: int = 1,
    hard: bool = False,
) -> SceneSpec:
    """Draw a scene from a seed; the same arguments always return the same scene.

    Args:
        seed: any integer from 0.
        size: height and width in pixels.
        frame_count: number of frames.
        objects: one or two, of different colours.
        hard: draw a hard scene: fast, with zoom and any rotation, and objects that may overlap and leave the frame.
            A calm one keeps its objects in the frame and nearly upright, two of them next to each other in the order
            of the caption.

    Raises:
        WaveOpsError: if the number of objects is not one or two.
    """
    if objects not in (1, 2):
        raise WaveOpsError(f"a random scene has one or two objects, got {objects}")
    rng = np.random.default_rng(seed)
    ranges = _HARD if hard else _CALM
    *colours, ground = (COLOURS[i] for i in rng.permutation(len(COLOURS))[: objects + 1])
    return SceneSpec(
        objects=tuple(
            _random_object(rng, colour, ranges=ranges, position=(i, objects)) for i, colour in enumerate(colours)
        ),
        background=_random_background(rng, ground, ranges=ranges),
        size=size,
        frame_count=frame_count,
    )


def edit_spec(
    spec: SceneSpec,
    *,
    colour: Colour | None = None,
    shape: Shape | None = None,
    background_colour: Colour | None = None,
    background_texture: Texture | None = None,
    object_index: int = 0,
) -> SceneSpec:
    """Change colour or shape of one object, or the background: the spec of a perfect edit.

    Args:
        spec: the source scene, of which every motion is kept.
        colour: new colour of the object; None keeps it, as for all others.
        shape: new shape of the object.
        background_colour: new colour of the background.
        background_texture: new texture of the background.
        object_index: the object to change.

    Raises:
        WaveOpsError: if the scene has no object with that index.
    """
    if not 0 <= object_index < len(spec.objects):
        raise WaveOpsError(f"the scene has {len(spec.objects)} objects, there is no object {object_index}")
    old, ground = spec.objects[object_index], spec.background
    new = replace(old, colour=colour or old.colour, shape=shape or old.shape)
    background = replace(
        ground, colour=background_colour or ground.colour, texture=background_texture or ground.texture
    )
    objects = (*spec.objects[:object_index], new, *spec.objects[object_index + 1 :])
    return replace(spec, objects=objects, background=background)


def _random_object(
    rng: np.random.Generator, colour: Colour, *, ranges: _Ranges, position: tuple[int, int]
) -> SceneObject:
    # Half of the objects are plain: captions never name their texture, so a model cannot know it
    texture = TEXTURES[rng.integers(len(TEXTURES))] if rng.random() < 0.5 else "plain"
    return SceneObject(
        shape=SHAPES[rng.integers(len(SHAPES))],
        colour=colour,
        texture=texture,
        motion=_object_motion(rng, ranges, position=position),
        period=float(rng.uniform(0.7, 0.9)),
    )


def _object_motion(rng: np.random.Generator, ranges: _Ranges, *, position: tuple[int, int]) -> Motion:
    index, count = position
    radius = float(rng.uniform(0.22, 0.32) if count == 1 else rng.uniform(0.16, 0.2))
    # Each of two objects moves in its own half of the frame
    middle = 0.0 if count == 1 else 0.25 * (2 * index - 1)
    room = np.array([0.5 / count - 0.95 * radius, 0.48 - radius]) + (0.2 if ranges is _HARD else 0.0)
    room = np.maximum(room, 0.03)
    start = rng.uniform(-room, room)
    heading = rng.uniform(0, 2 * np.pi)
    length = ranges.travel * rng.uniform(0.4, 1.0)
    end = np.clip(start + length * np.array([np.cos(heading), np.sin(heading)]), -room, room)
    angle = float(rng.uniform(-ranges.upright, ranges.upright))
    turned = angle + float(rng.uniform(-ranges.turn, ranges.turn))
    zoom = float(ranges.zoom ** rng.uniform(-1, 1))
    return Motion(
        start=Pose(x=middle + start[0], y=start[1], angle=angle, scale=radius),
        end=Pose(x=middle + end[0], y=end[1], angle=turned, scale=radius * zoom),
        arc=float(rng.uniform(-0.2, 0.2)) * length,
    )


def _random_background(rng: np.random.Generator, colour: Colour, *, ranges: _Ranges) -> Background:
    angle = float(rng.uniform(-0.3, 0.3))
    start = rng.uniform(-0.5, 0.5, 2)
    heading = rng.uniform(0, 2 * np.pi)
    pan = ranges.pan * rng.uniform(0.3, 1.0)
    zoom = float(ranges.background_zoom ** rng.uniform(-1, 1))
    return Background(
        colour=colour,
        texture=TEXTURES[rng.integers(len(TEXTURES))],
        motion=Motion(
            start=Pose(x=start[0], y=start[1], angle=angle),
            end=Pose(
                x=start[0] + pan * float(np.cos(heading)),
                y=start[1] + pan * float(np.sin(heading)),
                angle=angle + float(rng.uniform(-1, 1)) * ranges.background_turn,
                scale=zoom,
            ),
        ),
        period=float(rng.uniform(0.24, 0.3)),
    )
