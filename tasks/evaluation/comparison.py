"""What every comparison is: methods that are run on the same clips, and figures of what they gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wave_ops.scenes.rendering import Scene

__all__ = ["Comparison", "Edit", "EvaluationClip", "Measure", "Method", "Outcome", "ReadsManifest", "Resources"]

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change that is asked of a clip."""

    kind: str
    """colour, shape, background colour or background texture on scenes; "prompt" on real clips."""
    prompt: str
    truth: Scene | None = None
    """The clip as it would look after a perfect edit; None on real clips."""
    wanted: Mapping[str, str] = field(default_factory=dict)
    """On scenes: the attributes of the edited object and the background, named as in `Attributes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationClip:
    """A source clip with what is asked of it, and the truth where it was drawn."""

    name: str
    group: str
    """What makes it hard: calm, hard motion, occlusion, two objects, cut; "real" for given videos."""
    frames: Frames
    """Source frames (time, height, width, 3), uint8."""
    caption: str
    edits: tuple[Edit, ...]
    scene: Scene | None = None
    cuts: tuple[int, ...] = ()
    digest: str = ""
    """Identity of all of the above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way to do it."""

    name: str
    """Unique in its comparison; short, for tables."""
    factors: Mapping[str, Any]
    """JSON-able settings, the same keys for all methods of a comparison: they become columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A figure that a comparison gives."""

    name: str
    unit: str
    """dB, px, s, share, ... as printed; "" where there is none."""
    better: Literal["higher", "lower"] | None = None
    """Which way is better; None for a figure that is only told."""
    bar: float | None = None
    """The mean that is asked for, in the direction of `better`."""
    bar_method: str | None = None
    """The only method that the bar applies to; None for the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one method gave on one clip."""

    scores: Mapping[str, float]
    """By a measure's name; what cannot be measured here is left out."""
    frames: Frames | None = None
    """What it made (time, height, width, 3), for the report."""
    reference: Frames | None = None
    """What it should have made, of the same length; the report shows the difference from it. None: the source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What comparisons may use; all of it is part of a result's identity except the device."""

    model: Any
    """tasks.models.checkpoints.ModelIdentity"""
    controlnet: Any
    """tasks.models.checkpoints.NetworkIdentity | None"""
    flow: Any
    """tasks.models.flow_estimators.FlowIdentity"""
    device: str
    dtype: str
    seed: int
    lpips_weights: str | None = None
    """safetensors of LPIPS; None: LPIPS is left out."""
    clip_model: str | None = None
    """A CLIP in the transformers layout; None: its figures are left out."""


class Comparison(Protocol):
    """A comparison as `wave evaluate` runs it."""

    name: str
    title: str
    """One sentence: the question that it answers."""
    version: int
    """Raised where results change."""
    baseline: str
    """The method that the others are compared with, clip by clip."""
    measures: tuple[Measure, ...]

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """List the methods; a quick run takes the few that matter most."""
        ...

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw the scene clips that it is run on by default."""
        ...

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Run methods on one clip, each when it is asked for; what they share is computed once."""
        ...


@runtime_checkable
class ReadsManifest(Protocol):
    """What a comparison has besides if `--manifest` names something of its own kind, such as a folder of true flow."""

    def manifest_clips(self, path: Path, *, count: int | None) -> tuple[EvaluationClip, ...]:
        """Read the clips; the first `count` of them if that is given."""
        ...
