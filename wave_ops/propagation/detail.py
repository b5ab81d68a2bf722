"""What a frame shows and the patches that paint it do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float32

from wave_ops.guided_filter import NEAR, WINDOW, fit_local_affine, smooth_step

__all__ = ["TRUSTED", "restore_detail"]

Image: TypeAlias = Float32[np.ndarray, "height width 3"]

TRUSTED: Final = (0.95, 0.995)
"""Where the explained share passes from the lower to the upper, nothing of what is missing is restored, and all."""
_BAND: Final = 64
"""Rows that are worked on at a time, which bounds the memory."""
_HALO: Final = WINDOW // 2 + NEAR // 2
"""How far a pixel's explanation reaches."""


def restore_detail(image: Image, *, seen: Image, frame: Image) -> Image:
    """Return a synthesised frame with what its patches miss of the source frame, as the edit would show it.

    Patches lie on whole pixels of the keyframe, so edges between two pixels, new light and fine noise of the frame are
    not among them. What is missing, `frame` - `seen`, passes through the edit as it is around each pixel: the local
    affine function of `seen` that explains `image`, where it explains nearly all. What the source does not have, a
    texture, a shape or an outline, is explained by no such function, and stays as it was painted.

    Deviates from WAVE (ECCV 2024), which has no such step. The model is that of `wave_ops.guided_filter`.

    Args:
        image: the synthesised frame, 8-bit units.
        seen: what the same patches show of the keyframe's own source.
        frame: the source frame.
    """
    restored = np.empty_like(image)
    for rows, around, inner in _bands(len(image)):
        found = fit_local_affine(seen[around], image[around])
        trust = smooth_step(found.explained_variance, *TRUSTED)[inner]
        missed = np.einsum("hwij,hwj->hwi", found.gain[inner], frame[rows] - seen[rows])
        restored[rows] = np.clip(image[rows] + trust[..., None] * missed, 0, 255)
    return restored


def _bands(height: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield rows to work on, those with what they depend on, and the former's place in the latter."""
    for top in range(0, height, _BAND):
        bottom, first = min(top + _BAND, height), max(top - _HALO, 0)
        yield slice(top, bottom), slice(first, min(bottom + _HALO, height)), slice(top - first, bottom - first)
