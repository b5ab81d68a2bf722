"""A clip of a comparison, and the edits requested of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wave_ops.scenes.rendering import Scene

__all__ = ["Edit", "EvaluationClip", "Frames"]

Frames: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One requested change of a clip."""

    kind: str
    """colour, shape, background colour or background texture on scenes; "prompt" on real clips."""
    prompt: str
    truth: Scene | None = None
    """The clip as it would look after a perfect edit; None on real clips."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """On scenes: the attributes of the edited object and the background, named as in `Attributes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationClip:
    """A source clip with its edits, and the ground truth if it was drawn."""

    name: str
    group: str
    """The kind of difficulty: calm, hard motion, occlusion, two objects, cut; "real" for given videos."""
    frames: Frames
    """Source frames (time, height, width, 3), uint8."""
    caption: str
    edits: tuple[Edit, ...]
    scene: Scene | None = None
    cuts: tuple[int, ...] = ()
    """Indices of the first frame of each shot but the first."""
    digest: str = ""
    """Identity of all of the above."""
