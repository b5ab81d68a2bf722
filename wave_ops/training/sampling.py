"""Plain DDIM, both ways: just enough to see what a model under training can do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["ddim_move", "ddim_walk", "noise_levels"]


def ddim_move(latents: Tensor, noise_pred: Tensor, *, here: Tensor, there: Tensor) -> Tensor:
    """The deterministic step (Song et al. 2021, eq. 12, sigma 0) between two values of alphas_cumprod, either way."""
    clean = (latents - (1 - here).sqrt() * noise_pred) / here.sqrt()
    return there.sqrt() * clean + (1 - there).sqrt() * noise_pred


def noise_levels(alphas_cumprod: Tensor, *, steps: int) -> tuple[list[int], Tensor]:
    """Ascending timesteps 1, 1 + T / steps, ... and alphas_cumprod before them (index 0's) and at each of them."""
    timesteps = [1 + index * (len(alphas_cumprod) // steps) for index in range(steps)]
    return timesteps, alphas_cumprod[[0, *timesteps]]


@torch.no_grad()
def ddim_walk(
    predict: Callable[[Tensor, int], Tensor], latents: Tensor, *, alphas_cumprod: Tensor, steps: int, invert: bool
) -> Tensor:
    """Walk from noise to clean latents, or back, asking `predict(latents, timestep)` at each step."""
    timesteps, levels = noise_levels(alphas_cumprod, steps=steps)
    moves = list(zip(timesteps, pairwise(levels), strict=True))
    for timestep, (lower, upper) in moves if invert else reversed(moves):
        here, there = (lower, upper) if invert else (upper, lower)
        latents = ddim_move(latents, predict(latents, timestep), here=here, there=there)
    return latents
