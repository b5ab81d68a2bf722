"""Rows to read a table of edits by: what a method scores that does nothing, that mixes, or that is perfect.

A metric that one of the first two wins cannot be read alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.comparisons.comparison import Method

__all__ = ["EDITED", "REFERENCE_ROWS", "reference_methods"]

Frames = NDArray[np.uint8]

EDITED: Final = "edited"
"""Value of the factor "frames" of methods: their frames are edited; of a reference row it is the row's name."""


def _half(source: Frames, truth: Frames) -> Frames:
    mixed: Frames = np.rint((source.astype(np.float32) + truth) / 2).astype(np.uint8)
    return mixed


REFERENCE_ROWS: Final[Mapping[str, Callable[[Frames, Frames], Frames]]] = {
    "source unchanged": lambda source, _: source,
    "half source, half truth": _half,
    "true edit": lambda _, truth: truth,
}
"""Frames of each row, made from the source and the true edit."""


def reference_methods(factors: Mapping[str, Any]) -> tuple[Method, ...]:
    """List the reference rows.

    Args:
        factors: those of any method of the comparison; all but "frames" become None.
    """
    return tuple(
        Method(name=name, factors={**dict.fromkeys(factors), "frames": name}, reference=True) for name in REFERENCE_ROWS
    )
