"""How long to train, how fast, and on which noise levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from wave_ops.errors import WaveOpsError

__all__ = ["Budget", "learning_rate_factor", "noised", "stratified_timesteps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a training ends: after a number of steps or, if sooner, after minutes of its own time.

    Raises:
        WaveOpsError: if there are no steps, or the minutes are not positive.
    """

    steps: int
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.minutes is not None and self.minutes <= 0):
            raise WaveOpsError(f"a training needs steps and time, got {self.steps} steps, {self.minutes} minutes")

    def progress(self, step: int, seconds: float) -> float:
        """The part of the budget that is used up, 1 or more when it is spent."""
        used = step / self.steps
        return used if self.minutes is None else max(used, seconds / 60 / self.minutes)


def learning_rate_factor(
    progress: float, *, step: int, warmup_steps: int = 150, constant_until: float = 0.6, last: float = 0.02
) -> float:
    """A linear warm-up over steps, a constant stretch, and a linear fall to `last` at progress 1."""
    rise = min(1.0, (step + 1) / warmup_steps)
    fall = min(1.0, max(0.0, (progress - constant_until) / (1 - constant_until)))
    return rise * (1 - (1 - last) * fall)


def stratified_timesteps(count: int, *, total: int, generator: Generator) -> Tensor:
    """One random timestep from each of `count` equal parts of 0 .. total - 1, in random order."""
    places = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
    return (places * (total / count)).long().clamp(max=total - 1)


def noised(latents: Tensor, noise: Tensor, *, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """sqrt(a) latents + sqrt(1 - a) noise, with a of each sample's timestep."""
    kept = alphas_cumprod[timesteps].view(-1, *[1] * (latents.ndim - 1))
    return kept.sqrt() * latents + (1 - kept).sqrt() * noise
