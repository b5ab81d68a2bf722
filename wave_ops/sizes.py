"""Sizes at which frames are edited and analysed. Sizes are (height, width)."""

from __future__ import annotations

from math import sqrt

from wave_ops.errors import WaveOpsError

__all__ = ["analysis_size", "check_size", "fit_size"]


def fit_size(source: tuple[int, int], *, native_area: int, multiple: int) -> tuple[int, int]:
    """Return a size of the source's aspect and about ``native_area`` pixels, in multiples of ``multiple``.

    Each side is rounded to its nearest multiple and is at least one multiple, so aspect and area are approximate.

    Args:
        source: (height, width), pixels.
        native_area: the area that the model was trained on, pixels.
        multiple: divisor of both sides, pixels.

    Raises:
        WaveOpsError: a side, the area or the multiple is below 1.
    """
    check_size(source)
    if native_area < 1 or multiple < 1:
        raise WaveOpsError(f"expected an area and a multiple of at least 1, got {native_area} and {multiple}")
    scale = sqrt(native_area / (source[0] * source[1]))
    height, width = (max(1, round(side * scale / multiple)) * multiple for side in source)
    return height, width


def analysis_size(source: tuple[int, int], *, max_area: int = 512 * 512) -> tuple[int, int]:
    """Return the size that flow is estimated at: the source's, or a smaller one of at most ``max_area`` pixels.

    Args:
        source: (height, width), pixels.
        max_area: pixels; WAVE's authors estimated flow at 512 x 512.

    Returns:
        (height, width): the source's where it is small enough; else of its aspect, with even sides of at least 2.

    Raises:
        WaveOpsError: a side is below 1, or ``max_area`` below 4.
    """
    check_size(source)
    if max_area < 4:
        raise WaveOpsError(f"expected a largest area of at least 4 pixels, got {max_area}")
    if source[0] * source[1] <= max_area:
        return source
    scale = sqrt(max_area / (source[0] * source[1]))
    height, width = (max(2, int(side * scale / 2) * 2) for side in source)
    return height, width


def check_size(size: tuple[int, int]) -> None:
    """Check that both sides of a size are 1 pixel or more.

    Raises:
        WaveOpsError: if not.
    """
    if min(size) < 1:
        raise WaveOpsError(f"expected a size (height, width) of at least 1 pixel each, got {size}")
