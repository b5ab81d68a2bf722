"""Edited frames of one colour, such as black ones, where the source's are not: what a model that fails may leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["noting_uniform", "uniform_notes"]

Frame: TypeAlias = NDArray[np.uint8]


def noting_uniform(pairs: Iterable[tuple[int, tuple[Frame, Frame]]], found: list[int]) -> Iterator[tuple[Frame, Frame]]:
    """Pass frames of source and edit on, and add the numbers of frames to a list where the edit alone is uniform.

    Args:
        pairs: the number of a frame, with the source's and the edit's, (height, width, 3).
        found: receives the numbers.
    """
    for number, (source, edited) in pairs:
        if _is_uniform(edited) and not _is_uniform(source):
            found.append(number)
        yield source, edited


def uniform_notes(found: Sequence[int], *, total: int) -> list[str]:
    """Return one note on frames of one colour; none without any."""
    if not found:
        return []
    which = f"frame {found[0]}" if len(found) == 1 else f"the first is frame {found[0]}, the last frame {found[-1]}"
    return [f"Of {total} edited frames {len(found)} came out in one colour, where the source's do not: {which}."]


def _is_uniform(frame: Frame) -> bool:
    return bool((frame == frame[0, 0]).all())
