"""What the embedded model's parts are trained to make small."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

__all__ = ["autoencoder_loss", "autoencoder_step_loss", "diffusion_loss", "min_snr_weights"]

_ABSOLUTE_SHARE: Final = 0.2


def autoencoder_loss(
    reconstruction: Tensor, target: Tensor, *, mean: Tensor, log_variance: Tensor, kl_weight: float = 1e-6
) -> Tensor:
    """Squared plus 0.2 times absolute error, plus the weighted divergence of the latents from a unit normal.

    All terms are means over elements. A weight of 5e-4 was seen to silence a whole latent channel.
    """
    error = reconstruction - target
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return error.square().mean() + _ABSOLUTE_SHARE * error.abs().mean() + kl_weight * divergence


def autoencoder_step_loss(model: Any, pixels: Tensor) -> Tensor:
    """Encode and decode pixels, and compute `autoencoder_loss`; the networks run in bfloat16."""
    with torch.autocast(pixels.device.type, torch.bfloat16):
        posterior = model.encode(pixels).latent_dist
        reconstruction = model.decode(posterior.sample()).sample
    return autoencoder_loss(
        reconstruction.float(), pixels, mean=posterior.mean.float(), log_variance=posterior.logvar.float()
    )


def min_snr_weights(alphas_cumprod: Tensor, timesteps: Tensor, *, gamma: float = 5.0) -> Tensor:
    """min(SNR, gamma) / SNR for each timestep: the weight for predicting noise (Hang et al. 2023, eq. 7)."""
    kept = alphas_cumprod[timesteps]
    ratio = kept / (1 - kept)
    return ratio.clamp(max=gamma) / ratio


def diffusion_loss(noise_pred: Tensor, noise: Tensor, *, weights: Tensor) -> Tensor:
    """Mean over the batch of each sample's squared error times its weight."""
    per_sample = (noise_pred.float() - noise).square().flatten(1).mean(dim=1)
    return torch.mean(weights * per_sample)
