"""The parts of every comparison: methods that run on the same clips, and the metrics of their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tasks.evaluation.clips.clip import EvaluationClip, Frames
from tasks.models.checkpoints import ModelIdentity, NetworkIdentity
from tasks.models.flow_estimators import FlowIdentity

__all__ = ["Comparison", "Measure", "Method", "Outcome", "Resources"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One of the methods that a comparison runs."""

    name: str
    """Unique in its comparison; short, for tables."""
    factors: Mapping[str, Any]
    """JSON-able settings, the same keys for all methods of a comparison: they become columns."""
    baseline: str | None = None
    """The method that it is compared with; None for the comparison's baseline."""
    reference: bool = False
    """Whether it is no method but a row to read the others by, such as the source unchanged: it is never the best of a
    column, is not compared with the baseline, and is in every table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A metric of a comparison."""

    name: str
    unit: str
    """dB, px, s, fraction, ... as printed; "" where there is none."""
    better: Literal["higher", "lower"] | None = None
    """Which direction is better; None for a metric without a direction."""
    average: Literal["mean", "median"] = "mean"
    """How values of clips are averaged; the median where a few clips would decide the mean."""
    target: float | None = None
    """The mean to reach, in the direction of `better`."""
    target_method: str | None = None
    """The only method that the target applies to; None for the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one method on one clip."""

    scores: Mapping[str, float]
    """Values by the name of the metric; metrics without a value on this clip are left out."""
    frames: Frames | None = None
    """The method's frames (time, height, width, 3), for the report."""
    reference: Frames | None = None
    """The correct frames, of the same length; the report shows the difference from them. None: the source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The networks and settings that comparisons may use; all but the device are part of a result's identity."""

    model: ModelIdentity
    controlnet: NetworkIdentity | None
    flow: FlowIdentity
    device: str
    dtype: str
    seed: int
    shuffle_seed: int = 0
    """Of the orders of keyframes, together with the seed."""
    lpips_weights: str | None = None
    """Safetensors file of LPIPS; None: LPIPS is left out."""
    clip_model: str | None = None
    """A CLIP in the transformers layout; None: its metrics are left out."""

    @property
    def order_seed(self) -> int | list[int]:
        """What the orders are drawn from; the seed alone by default, as in outcomes without a shuffle seed."""
        return [self.seed, self.shuffle_seed] if self.shuffle_seed else self.seed


class Comparison(Protocol):
    """A comparison as `wave evaluate` runs it.

    A comparison may also have a method `manifest_clips(path, *, count)` that returns EvaluationClips: then `--manifest`
    names something of its own kind, such as a folder of true flow, instead of a table of videos.
    """

    name: str
    title: str
    """One sentence: the question that it answers."""
    version: int
    """Increased when results change."""
    baseline: str
    """The method that the others are compared with, clip by clip."""
    measures: tuple[Measure, ...]

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """List the methods; a quick run takes the few that matter most."""
        ...

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw the scene clips that it runs on by default."""
        ...

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Run methods on one clip, each when its outcome is requested; shared work is done once."""
        ...
