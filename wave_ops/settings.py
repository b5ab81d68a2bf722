"""Settings of the method, apart from propagation: plain values, so that an edit is planned without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from wave_ops.errors import WaveOpsError
from wave_ops.shuffle import ShuffleMode

__all__ = [
    "NEGATIVE_PROMPT",
    "Anchor",
    "EditingSettings",
    "InversionSettings",
    "NoisePoint",
    "Phase",
    "ToleranceAt",
    "WarpMaskSettings",
    "WarpSchedule",
    "WarpWindow",
]

Phase = Literal["inversion", "editing"]
WarpWindow = Literal["aligned", "published"]
ToleranceAt = Literal["match", "pixel"]
NoisePoint = Literal["previous", "extrapolated"]
Anchor = Literal["order", "time"]

NEGATIVE_PROMPT = "ugly, blurry, low res, unrealistic, unaesthetic"


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpSchedule:
    """The number of steps and which of them warp features: one value shared by an inversion and its edits.

    Source: WAVE, "the first 40 steps" of 50. `published` reads this literally: the first 80 % of each phase's own
    loop, which are the low timesteps in inversion and the high ones in editing. `aligned` (ours) is the high timesteps
    in both phases, so that editing reverses the inversion.

    Raises:
        WaveOpsError: the number of steps is below 1, the fraction is outside 0 to 1, or the window is unknown.
    """

    steps: int = 50
    """S, the steps of the DDIM schedule."""
    window: WarpWindow = "aligned"
    """The part of each loop that warps features."""
    warp_fraction: float = 0.8
    """Fraction of the steps that warp features, 0 to 1; 0 is plain DDIM."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise WaveOpsError(f"steps must be 1 or more, got {self.steps}")
        if not 0 <= self.warp_fraction <= 1:
            raise WaveOpsError(f"the warped fraction of the steps must be from 0 to 1, got {self.warp_fraction}")
        if self.window not in get_args(WarpWindow):
            raise WaveOpsError(f"unknown window {self.window!r}: expected {' or '.join(get_args(WarpWindow))}")

    def warped_steps(self, phase: Phase) -> frozenset[int]:
        """Return the step indices, of 1 to S, that warp features.

        Args:
            phase: inversion (from step 1 to S) or editing (from step S to 1).
        """
        count = round(self.warp_fraction * self.steps)
        low, high = range(1, count + 1), range(self.steps - count + 1, self.steps + 1)
        return frozenset(low if (self.window, phase) == ("published", "inversion") else high)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpMaskSettings:
    """The constants of the warp mask B; see `occlusion_mask` and `warp_mask`.

    Raises:
        WaveOpsError: a threshold is negative or not a number, or the place of the tolerance is unknown.
    """

    residual_threshold: float = 0.04
    """The least colour residual that is too large, on [0, 1]; infinity for none."""
    relative: float = 0.01
    """Allowed distance from the pixel as a fraction of the two lengths."""
    absolute: float = 0.5
    """Distance that is always allowed, pixels (pixels squared where `squared`)."""
    squared: bool = False
    """Compare squared norms."""
    tolerance_at: ToleranceAt = "match"
    """Where the length of the return flow is taken: at the match, or at the pixel itself as WAVE's authors ran it."""

    def __post_init__(self) -> None:
        thresholds = (self.residual_threshold, self.relative, self.absolute)
        if not all(threshold >= 0 for threshold in thresholds):
            raise WaveOpsError(f"expected thresholds of at least 0, got {thresholds}")
        if self.tolerance_at not in get_args(ToleranceAt):
            raise WaveOpsError(f"expected a tolerance at match or pixel, got {self.tolerance_at!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InversionSettings:
    """The settings that the latents of an inversion depend on, apart from the prompt and inputs."""

    schedule: WarpSchedule = field(default_factory=WarpSchedule)
    """The steps, and which of them warp features; shared with the edits of this inversion."""
    seed: int = 0
    """Seed of the orders, together with the step index."""
    shuffle: ShuffleMode = "group"
    """The distribution that the orders are drawn from."""
    noise_point: NoisePoint = "extrapolated"
    """The latents at which a step's noise is predicted: x_{j-1}, as published, or x_j extrapolated from the two latents
    before it (ours)."""
    extrapolation_limit: float = 2.0
    """The point is extrapolated only where it is at most so many times as far ahead as the step before: the second
    step of a leading schedule reaches many times as far as the first, from a noise that is predicted poorly."""
    refinements: int = 0
    """Fixed-point iterations of each step, one more UNet call each (ours)."""

    def __post_init__(self) -> None:
        """Check the noise point, the limit of extrapolation and the refinements.

        Raises:
            WaveOpsError: the noise point is unknown, or a number is negative.
        """
        if self.noise_point not in get_args(NoisePoint):
            raise WaveOpsError(
                f"expected a noise_point of {' or '.join(get_args(NoisePoint))}, got {self.noise_point!r}"
            )
        if self.extrapolation_limit < 0:
            raise WaveOpsError(f"expected an extrapolation_limit of at least 0, got {self.extrapolation_limit}")
        if self.refinements < 0:
            raise WaveOpsError(f"expected 0 refinements or more, got {self.refinements}")

    @property
    def steps(self) -> int:
        """S, the steps of the schedule."""
        return self.schedule.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class EditingSettings:
    """The settings that the edited latents depend on, apart from prompts and inputs."""

    schedule: WarpSchedule = field(default_factory=WarpSchedule)
    """The steps, and which of them warp features and extend attention; that of the inversion."""
    guidance_scale: float = 12.5
    """Weight of classifier-free guidance; 1 is the conditional prediction alone."""
    injection_fraction: float = 0.5
    """Fraction of the steps, from the noisiest on, that inject the source's queries and keys, 0 to 1; 0 for none."""
    feature_injection_fraction: float | None = None
    """The same for the outputs of ResNets; None for that of queries and keys."""
    extended_attention: bool = True
    """Compute keys and values from the anchor frame's tokens too, in the steps that warp, with flows or without."""
    anchor: Anchor = "order"
    """The anchor frame: the first of the step's order, or the first in time, which needs all keyframes in one batch."""
    controlnet_scale: float = 0.5
    """Weight of the ControlNet's residuals, if there is a ControlNet."""
    keep: bool = False
    """Keep what the two prompts do not disagree on: outside a mask the latents of each step are the inversion's (ours,
    after DiffEdit)."""
    keep_threshold: float = 0.8
    """What counts as a disagreement, in units of Otsu's threshold: less for a larger mask."""
    keep_grow: int = 0
    """Cells of the latents' grid by which that mask is grown."""
    paste: bool = False
    """Where there is such a mask, take the pixels outside from the source, once the keyframes are decoded (ours)."""

    def __post_init__(self) -> None:
        """Check the injected fractions and the growth.

        Raises:
            WaveOpsError: a fraction is outside 0 to 1, or the threshold or the growth is negative.
        """
        for fraction in (self.injection_fraction, self.features_fraction):
            if not 0 <= fraction <= 1:
                raise WaveOpsError(f"expected an injected fraction of the steps from 0 to 1, got {fraction}")
        if self.keep_grow < 0:
            raise WaveOpsError(f"expected a keep_grow of at least 0, got {self.keep_grow}")
        if not self.keep_threshold >= 0:
            raise WaveOpsError(f"expected a keep_threshold of at least 0, got {self.keep_threshold}")

    @property
    def steps(self) -> int:
        """S, the steps of the schedule."""
        return self.schedule.steps

    @property
    def features_fraction(self) -> float:
        """Fraction of the steps that inject the outputs of ResNets."""
        given = self.feature_injection_fraction
        return self.injection_fraction if given is None else given

    def injects(self, step_index: int) -> bool:
        """Return whether step j injects the source's queries and keys."""
        return self._within(self.injection_fraction, step_index)

    def injects_features(self, step_index: int) -> bool:
        """Return whether step j injects the source's outputs of ResNets."""
        return self._within(self.features_fraction, step_index)

    def _within(self, fraction: float, step_index: int) -> bool:
        return self.steps - step_index < round(fraction * self.steps)
