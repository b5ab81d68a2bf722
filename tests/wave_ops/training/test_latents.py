"""Latents of frames, and their rescaling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from wave_ops.training.latents import encode_latents, fold_latent_statistics, standardise_latents
from wave_ops.training.modules import build_autoencoder


@pytest.fixture
def autoencoder() -> Any:
    torch.manual_seed(0)
    return build_autoencoder().eval()


def frames(count: int) -> Tensor:
    return torch.randint(256, (count, 32, 32, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@torch.no_grad()
def test_folding_standardises_latents_and_does_not_change_what_they_decode_to(autoencoder: Any) -> None:
    pixels = torch.randn(8, 3, 32, 32)
    before = autoencoder.encode(pixels).latent_dist
    decoded = autoencoder.decode(before.mean).sample
    mean, std = before.mean.mean(dim=(0, 2, 3)), before.mean.std(dim=(0, 2, 3))
    fold_latent_statistics(autoencoder, mean=mean, std=std)
    after = autoencoder.encode(pixels).latent_dist
    scaled = after.mean * autoencoder.config.scaling_factor
    torch.testing.assert_close(scaled.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(autoencoder.decode(after.mean).sample, decoded, atol=1e-4, rtol=1e-4)
    width = std * autoencoder.config.scaling_factor
    torch.testing.assert_close(after.std, before.std / width.view(1, -1, 1, 1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_latents_are_the_scaled_means_whatever_the_batch_size(autoencoder: Any) -> None:
    pixels = frames(5).permute(0, 3, 1, 2) / 255 * 2 - 1
    expected = autoencoder.encode(pixels).latent_dist.mean * autoencoder.config.scaling_factor
    for batch_size in (2, 8):
        found = encode_latents(autoencoder, frames(5), batch_size=batch_size)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_standardised_latents_are_those_of_the_rescaled_autoencoder(autoencoder: Any) -> None:
    standardised = standardise_latents(autoencoder, encode_latents(autoencoder, frames(4)))
    torch.testing.assert_close(encode_latents(autoencoder, frames(4)), standardised, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(standardised.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardised.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
