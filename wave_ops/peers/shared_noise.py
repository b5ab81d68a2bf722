"""An edit without inversion: the difference of two prompts' predictions, with the same noise.

Source: Kulikov et al., "FlowEdit" (ICCV 2025), algorithm 1. There the velocities of a flow model move the source along
the difference of the two prompts. Adapted to a model that predicts noise: with x / sqrt(a) as a function of
s = sqrt((1 - a) / a), a DDIM step is an Euler step of slope epsilon (Song et al. 2021, eq. 13), so s takes the place of
the flow's time and epsilon that of its velocity.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from wave_ops.conditioning import encode_prompts
from wave_ops.diffusion import StableDiffusion
from wave_ops.errors import WaveOpsError
from wave_ops.peers.method import PeerMethod
from wave_ops.peers.sampling import predict_noise
from wave_ops.schedule import DDIMSchedule

__all__ = ["SharedNoiseSettings", "edit_with_shared_noise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedNoiseSettings:
    """The settings of an edit without inversion."""

    steps: int = 50
    """S of the schedule."""
    fraction: float = 0.66
    """Fraction of the steps that are run, above 0 and up to 1; the noisiest ones are left out."""
    guidance_scale: float = 7.5
    """Of the edit's prompt."""
    source_guidance_scale: float = 1.0
    """Of the source's prompt."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fraction.

        Raises:
            WaveOpsError: the fraction is not above 0 and up to 1.
        """
        if not 0 < self.fraction <= 1:
            raise WaveOpsError(f"expected a fraction of the steps above 0 and up to 1, got {self.fraction}")


@torch.inference_mode()
def edit_with_shared_noise(
    model: StableDiffusion,
    latents: Float[Tensor, "frame channel height width"],
    *,
    prompt: str,
    source_prompt: str,
    negative_prompt: str,
    settings: SharedNoiseSettings,
) -> Float[Tensor, "frame channel height width"]:
    """Move the latents along the difference of the noise predicted for the two prompts.

    At each step one noise is drawn, the same for all frames and both prompts.

    Args:
        model: the diffusion model; its ControlNet is not used.
        latents: x_0 of the frames.
        prompt: describes the edited clip.
        source_prompt: describes the source.
        negative_prompt: the prompt of the unconditional predictions.
        settings: see SharedNoiseSettings.

    Returns:
        The edited x_0, float32; the source's if both prompts and guidance scales are equal.
    """
    schedule = DDIMSchedule.from_config(model.scheduler_config, steps=settings.steps)
    prompts = encode_prompts(model, (negative_prompt, source_prompt, negative_prompt, prompt))
    clean = latents.float().to(model.device)
    moved, alone = clean, PeerMethod()
    for j in range(max(1, round(settings.fraction * settings.steps)), 0, -1):
        generator = torch.Generator().manual_seed(settings.seed * settings.steps + j)
        noise = torch.randn(clean.shape[1:], generator=generator).to(clean).expand_as(clean)
        pair = [schedule.add_noise(each, noise, j) for each in (clean, moved)]
        batch = torch.stack([pair[0], pair[0], pair[1], pair[1]])
        predicted = predict_noise(model, schedule, batch, prompts, step_index=j, method=alone)
        slopes = [
            without + scale * (given - without)
            for (without, given), scale in zip(
                (predicted[:2], predicted[2:]), (settings.source_guidance_scale, settings.guidance_scale), strict=True
            )
        ]
        moved = moved + (_level(schedule, j - 1) - _level(schedule, j)) * (slopes[1] - slopes[0])
    return moved


def _level(schedule: DDIMSchedule, step_index: int) -> float:
    a = schedule.alphas_cumprod[step_index]
    return sqrt((1 - a) / a)
