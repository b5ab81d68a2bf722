"""Orientation: how stored frames are rotated and mirrored to be upright.

A phone stores the sensor's rows as they come and adds a display matrix, which players apply, so frames are turned
before anything else sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Orientation"]


_DEGREES = 57  # in a radian


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """One of the eight orientations of an image: transpose, then mirror columns, then mirror rows."""

    transposed: bool = False
    mirror_columns: bool = False
    mirror_rows: bool = False

    @classmethod
    def of(cls, side_data: Mapping[str, bytes]) -> Orientation:
        """Return the orientation in a frame's side data, the display matrix, rounded to the nearest quarter turn.

        Convention: the matrix (a b u, c d v, x y w) maps the stored pixel (x, y) to (a x + c y, b x + d y), y down.
        """
        if "DISPLAYMATRIX" not in side_data:
            return cls()
        matrix = np.frombuffer(side_data["DISPLAYMATRIX"], np.int32).astype(np.int64)
        a, b, c, d = (int(matrix[index]) for index in (0, 1, 3, 4))
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transposed=True, mirror_columns=c < 0, mirror_rows=b < 0)
        return cls(mirror_columns=a < 0, mirror_rows=d < 0)

    @staticmethod
    def is_rough(side_data: Mapping[str, bytes]) -> bool:
        """Return whether a display matrix is further than a degree from a quarter turn, or skews."""
        if "DISPLAYMATRIX" not in side_data:
            return False
        matrix = np.abs(np.frombuffer(side_data["DISPLAYMATRIX"], np.int32).astype(np.int64))
        a, b, c, d = (int(matrix[index]) for index in (0, 1, 3, 4))
        return min(max(b, c), max(a, d)) * _DEGREES > max(a, b, c, d)

    @property
    def degrees(self) -> int:
        """Degrees clockwise that turn a stored frame upright, apart from mirroring."""
        if self.transposed:
            return 90 if self.mirror_columns else 270
        return 180 if self.mirror_columns and self.mirror_rows else 0

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Return the upright (height, width) of a stored (height, width)."""
        return (stored[1], stored[0]) if self.transposed else stored

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the upright image of a stored image (height, width, 3)."""
        turned = image.transpose(1, 0, 2) if self.transposed else image
        return np.ascontiguousarray(turned[:: -1 if self.mirror_rows else 1, :: -1 if self.mirror_columns else 1])
