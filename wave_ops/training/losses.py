"""Losses of the embedded model's parts, from tensors and for a whole training step."""

from __future__ import annotations

from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from wave_ops.training.batches import DiffusionBatch

__all__ = [
    "autoencoder_loss",
    "autoencoder_step_loss",
    "controlnet_step_loss",
    "denoiser_step_loss",
    "diffusion_loss",
]

_ABSOLUTE_WEIGHT: Final = 0.2


def autoencoder_loss(
    reconstruction: Float[Tensor, "batch channel height width"],
    target: Float[Tensor, "batch channel height width"],
    *,
    mean: Float[Tensor, "batch latent_channel rows columns"],
    log_variance: Float[Tensor, "batch latent_channel rows columns"],
    kl_weight: float = 1e-6,
) -> Float[Tensor, ""]:
    """Compute the squared error plus 0.2 times the absolute error plus the weighted KL divergence from N(0, 1).

    Source: after Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (CVPR 2022), appendix
    G; deviates in the errors of pixels, which replace the perceptual and the adversarial term. All terms are means
    over elements.

    Args:
        reconstruction: decoded pixels in [-1, 1].
        target: true pixels in [-1, 1].
        mean: mean of the latents' posterior.
        log_variance: logarithm of its variance.
        kl_weight: weight of the divergence. In a training with 5e-4 a whole latent channel collapsed.
    """
    error = reconstruction - target
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return error.square().mean() + _ABSOLUTE_WEIGHT * error.abs().mean() + kl_weight * divergence


def autoencoder_step_loss(autoencoder: Any, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, ""]:
    """Encode and decode pixels in bfloat16, and compute `autoencoder_loss` in float32.

    Args:
        autoencoder: an AutoencoderKL; its latents are drawn with torch's global generator.
        pixels: in [-1, 1].
    """
    with torch.autocast(pixels.device.type, torch.bfloat16):
        posterior = autoencoder.encode(pixels).latent_dist
        reconstruction = autoencoder.decode(posterior.sample()).sample
    return autoencoder_loss(
        reconstruction.float(), pixels, mean=posterior.mean.float(), log_variance=posterior.logvar.float()
    )


def diffusion_loss(
    noise_pred: Float[Tensor, "batch channel height width"],
    noise: Float[Tensor, "batch channel height width"],
    *,
    weights: Float[Tensor, "batch"],
) -> Float[Tensor, ""]:
    """Compute the mean over the batch of each sample's mean squared error times its weight."""
    per_sample = (noise_pred.float() - noise).square().flatten(1).mean(dim=1)
    return torch.mean(weights * per_sample)


def denoiser_step_loss(unet: Any, text_encoder: Any, batch: DiffusionBatch) -> Float[Tensor, ""]:
    """Predict a batch's noise with UNet and text encoder, and compute `diffusion_loss`."""
    hidden_states = text_encoder(batch.token_ids)[0]
    noise_pred = unet(batch.noisy, batch.timesteps, hidden_states, return_dict=False)[0]
    return diffusion_loss(noise_pred, batch.noise, weights=batch.weights)


def controlnet_step_loss(
    controlnet: Any,
    unet: Any,
    text_encoder: Any,
    *,
    batch: DiffusionBatch,
    edges: Float[Tensor, "batch 3 rows columns"],
) -> Float[Tensor, ""]:
    """Predict a batch's noise with the ControlNet's residuals added to the UNet, and compute `diffusion_loss`.

    Args:
        controlnet: the ControlNet to train.
        unet: the UNet that it controls.
        text_encoder: encodes the captions for both.
        batch: latents, captions and noise.
        edges: canny edges, 0 or 1, of the batch's frames.
    """
    hidden_states = text_encoder(batch.token_ids)[0]
    down, middle = controlnet(batch.noisy, batch.timesteps, hidden_states, edges, return_dict=False)
    noise_pred = unet(
        batch.noisy,
        batch.timesteps,
        hidden_states,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]
    return diffusion_loss(noise_pred, batch.noise, weights=batch.weights)
