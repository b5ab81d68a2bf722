"""The way a stored frame is turned to stand upright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Orientation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """A quarter turn, with or without mirroring: transpose, then mirror columns, then mirror rows."""

    transposed: bool = False
    mirror_columns: bool = False
    mirror_rows: bool = False

    @classmethod
    def of(cls, frame: Any) -> Orientation:
        """The orientation that a decoded frame's display matrix asks for; angles between quarters go to the next one.

        Convention: the matrix (a b u, c d v, x y w) sends the stored pixel (x, y) to (a x + c y, b x + d y),
        y down.
        """
        side_data = {data.type.name: data for data in frame.side_data}
        if "DISPLAYMATRIX" not in side_data:
            return cls()
        matrix = np.frombuffer(bytes(side_data["DISPLAYMATRIX"]), np.int32).astype(np.int64)
        a, b, c, d = (int(matrix[place]) for place in (0, 1, 3, 4))
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transposed=True, mirror_columns=c < 0, mirror_rows=b < 0)
        return cls(mirror_columns=a < 0, mirror_rows=d < 0)

    @property
    def degrees(self) -> int:
        """Degrees clockwise, after which at most a mirror image is left."""
        if self.transposed:
            return 90 if self.mirror_columns else 270
        return 180 if self.mirror_columns and self.mirror_rows else 0

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Upright (height, width) of a stored (height, width)."""
        return (stored[1], stored[0]) if self.transposed else stored

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The upright image of a stored one (height, width, 3)."""
        turned = image.transpose(1, 0, 2) if self.transposed else image
        return np.ascontiguousarray(turned[:: -1 if self.mirror_rows else 1, :: -1 if self.mirror_columns else 1])
