"""Latents of the training frames, and the exact rescaling of an autoencoder's latents."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wave_ops.training.batches import to_pixels

__all__ = ["encode_latents", "fold_latent_statistics", "standardise_latents"]


@torch.no_grad()
def encode_latents(
    autoencoder: Any, frames: UInt8[Tensor, "frame height width 3"], *, batch_size: int = 8
) -> Float[Tensor, "frame channel rows columns"]:
    """Encode frames; return the means of the posterior times the scaling factor of the autoencoder's config."""
    means = [autoencoder.encode(to_pixels(part)).latent_dist.mean for part in frames.split(batch_size)]
    return torch.cat(means) * float(autoencoder.config.scaling_factor)


def standardise_latents(
    autoencoder: Any, latents: Float[Tensor, "frame channel rows columns"]
) -> Float[Tensor, "frame channel rows columns"]:
    """Rescale an autoencoder, in place, so that each channel of its latents has mean 0 and standard deviation 1.

    Args:
        autoencoder: an AutoencoderKL, changed by `fold_latent_statistics`.
        latents: what `encode_latents` returned for it.

    Returns:
        The latents that the rescaled autoencoder returns for the same frames, without encoding them again.
    """
    means: Tensor = latents / autoencoder.config.scaling_factor
    mean, std = means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3))
    fold_latent_statistics(autoencoder, mean=mean, std=std)
    return (means - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)


@torch.no_grad()
def fold_latent_statistics(autoencoder: Any, *, mean: Float[Tensor, "channel"], std: Float[Tensor, "channel"]) -> None:
    """Shift and scale the latents inside the quant convolutions; decoded frames stay the same.

    Afterwards the latents times the config's scaling factor have mean 0 and standard deviation 1 in every channel.

    Args:
        autoencoder: an AutoencoderKL, changed in place.
        mean: mean of its latents before the change.
        std: their standard deviation.
    """
    width = std * autoencoder.config.scaling_factor
    into, back = autoencoder.quant_conv, autoencoder.post_quant_conv
    count = len(mean)
    back.bias += back.weight.flatten(1) @ mean
    back.weight *= width.view(1, -1, 1, 1)
    into.weight[:count] /= width.view(-1, 1, 1, 1)
    into.bias[:count] = (into.bias[:count] - mean) / width
    into.bias[count:] -= 2 * width.log()
