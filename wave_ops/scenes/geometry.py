"""Poses, motions, shapes and patterns as plain functions of coordinates.

Convention:
    Frame coordinates are in short sides of the frame from its centre, x to the right and y down, so a scene is the same
    at any size. Layer coordinates are those of a layer before its pose scales, rotates and moves it. Points are a pair
    of arrays (x, y) that broadcast against each other; a result has their common shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wave_ops.scenes.vocabulary import Shape, Texture

__all__ = ["MAX_RADIUS", "Motion", "Points", "Pose", "dark_half", "inside"]

Array = npt.NDArray[np.floating[Any]]
Mask = Any  # npt.NDArray[np.bool_]: comparisons of float arrays are untyped
Points = tuple[Array, Array]

MAX_RADIUS: Final = 1.3
"""Upper bound on the distance of a shape's points from its centre, in layer coordinates."""

_TRIANGLE_RADIUS: Final = 1.3
_STAR_OUTER: Final = 1.28
_STAR_INNER: Final = 0.56


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """A similarity transform: scale, rotate by `angle` (radians, clockwise on screen), move by x, y (short sides)."""

    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0
    scale: float = 1.0

    def to_frame(self, points: Points) -> Points:
        """Map points from layer to frame coordinates."""
        (x, y), cosine, sine = points, np.cos(self.angle), np.sin(self.angle)
        return self.x + self.scale * (cosine * x - sine * y), self.y + self.scale * (sine * x + cosine * y)

    def to_layer(self, points: Points) -> Points:
        """Map points from frame to layer coordinates, the inverse of `to_frame`."""
        x, y = points[0] - self.x, points[1] - self.y
        cosine, sine = np.cos(self.angle) / self.scale, np.sin(self.angle) / self.scale
        return cosine * x + sine * y, cosine * y - sine * x


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """A path from one pose to another, straight unless it has an arc."""

    start: Pose
    end: Pose
    arc: float = 0.0
    """Sideways distance of the path's middle from a straight one, in short sides."""

    def at(self, progress: float) -> Pose:
        """Return the pose at a fraction of the path, 0 at the start and 1 at the end."""
        dx, dy = self.end.x - self.start.x, self.end.y - self.start.y
        length = float(np.hypot(dx, dy))
        bend = self.arc * float(np.sin(np.pi * progress)) / length if length else 0.0
        return Pose(
            x=self.start.x + progress * dx - bend * dy,
            y=self.start.y + progress * dy + bend * dx,
            angle=self.start.angle + progress * (self.end.angle - self.start.angle),
            scale=self.start.scale * (self.end.scale / self.start.scale) ** progress,
        )


def inside(shape: Shape, points: Points) -> Mask:
    """Return True for points inside a shape, in layer coordinates; radii are about 1, so that areas are similar."""
    return _SHAPES[shape](*points)


def dark_half(texture: Texture, points: Points) -> Mask | None:
    """Return True for points in the darker of a texture's two shades; None for a plain one.

    Points are in units of the texture's period.
    """
    return _PATTERNS[texture](*points)


def _circle(x: Array, y: Array) -> Mask:
    return x * x + y * y <= 0.92**2


def _square(x: Array, y: Array) -> Mask:
    return np.maximum(np.abs(x), np.abs(y)) <= 0.82


def _triangle(x: Array, y: Array) -> Mask:
    slanted = np.cos(np.pi / 6) * np.abs(x) - 0.5 * y
    return np.maximum(y, slanted) <= _TRIANGLE_RADIUS / 2


def _star(x: Array, y: Array) -> Mask:
    tenth = np.pi / 5
    # Folded at the axes through its corners, the outline is one straight edge from an outer to an inner corner
    angle = np.abs((np.arctan2(x, -y) + tenth) % (2 * tenth) - tenth)
    radius = np.hypot(x, y)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    corner_along, corner_across = _STAR_INNER * np.cos(tenth), _STAR_INNER * np.sin(tenth)
    return (along - _STAR_OUTER) * corner_across <= across * (corner_along - _STAR_OUTER)


def _ring(x: Array, y: Array) -> Mask:
    squared = x * x + y * y
    return (squared <= 1.04**2) & (squared >= 0.52**2)


def _striped(x: Array, y: Array) -> Mask:
    return np.floor(2 * x) % 2 == 1


def _checked(x: Array, y: Array) -> Mask:
    return (np.floor(2 * x) + np.floor(2 * y)) % 2 == 1


def _dotted(x: Array, y: Array) -> Mask:
    dx, dy = x - np.floor(x) - 0.5, y - np.floor(y) - 0.5
    return dx * dx + dy * dy <= 0.29**2


_SHAPES: Final[dict[Shape, Callable[[Array, Array], Mask]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
}
_PATTERNS: Final[dict[Texture, Callable[[Array, Array], Mask | None]]] = {
    "plain": lambda x, y: None,
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
}
