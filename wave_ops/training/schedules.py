"""Length of a training, its learning rate, and its noise levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from wave_ops.errors import WaveOpsError

__all__ = ["Budget", "add_noise", "learning_rate_factor", "min_snr_weights", "stratified_timesteps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Length of a training, which ends with its steps or its minutes, whichever is sooner.

    Raises:
        WaveOpsError: if the steps or the minutes are not positive.
    """

    steps: int
    minutes: float | None = None
    """Time spent in steps; None for no limit."""

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.minutes is not None and self.minutes <= 0):
            raise WaveOpsError(f"a training needs steps and time, got {self.steps} steps, {self.minutes} minutes")

    def progress(self, step: int, seconds: float) -> float:
        """Return the fraction of the budget that is used up, 1 or more when the training should end.

        Args:
            step: steps done.
            seconds: time spent in them.
        """
        used = step / self.steps
        return used if self.minutes is None else max(used, seconds / 60 / self.minutes)


def learning_rate_factor(
    progress: float, *, step: int, warmup_steps: int = 150, constant_until: float = 0.6, last: float = 0.02
) -> float:
    """Return the factor on the learning rate: linear warm-up over steps, a constant stretch, a linear decay.

    Args:
        progress: fraction of the budget that is used up.
        step: steps done.
        warmup_steps: steps until the factor is 1.
        constant_until: progress at which the decay begins.
        last: factor at progress 1 and after.
    """
    rise = min(1.0, (step + 1) / warmup_steps)
    fall = min(1.0, max(0.0, (progress - constant_until) / (1 - constant_until)))
    return rise * (1 - (1 - last) * fall)


def stratified_timesteps(count: int, *, total: int, generator: Generator) -> Int64[Tensor, "batch"]:
    """Draw one timestep from each of `count` equal parts of 0 .. total - 1, in random order."""
    positions = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
    return (positions * (total / count)).long().clamp(max=total - 1)


def add_noise(
    latents: Float[Tensor, "batch channel height width"],
    noise: Float[Tensor, "batch channel height width"],
    *,
    alphas_cumprod: Float[Tensor, "timestep"],
    timesteps: Int64[Tensor, "batch"],
) -> Float[Tensor, "batch channel height width"]:
    """Return sqrt(a) latents + sqrt(1 - a) noise, with a = alphas_cumprod at each sample's timestep.

    Source: Ho et al., "Denoising Diffusion Probabilistic Models" (NeurIPS 2020), eq. 4.
    """
    kept = alphas_cumprod[timesteps].view(-1, *[1] * (latents.ndim - 1))
    return kept.sqrt() * latents + (1 - kept).sqrt() * noise


def min_snr_weights(
    alphas_cumprod: Float[Tensor, "timestep"], timesteps: Int64[Tensor, "batch"], *, gamma: float = 5.0
) -> Float[Tensor, "batch"]:
    """Return min(SNR, gamma) / SNR for each timestep, the weight of a loss on predicted noise.

    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (ICCV 2023).
    """
    kept = alphas_cumprod[timesteps]
    ratio = kept / (1 - kept)
    return ratio.clamp(max=gamma) / ratio
