"""Losses against their formulas, and of whole steps with small stand-ins for the networks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from wave_ops.training.batches import DiffusionBatch
from wave_ops.training.losses import (
    autoencoder_loss,
    autoencoder_step_loss,
    controlnet_step_loss,
    denoiser_step_loss,
    diffusion_loss,
)


def test_the_loss_of_a_perfect_autoencoder_with_unit_latents_is_0() -> None:
    target, zero = torch.rand(2, 3, 4, 4), torch.zeros(2, 4, 1, 1)
    assert autoencoder_loss(target, target, mean=zero, log_variance=zero) == 0


def test_the_autoencoder_loss_is_squared_plus_a_fifth_of_absolute_error_plus_divergence() -> None:
    target, off = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    mean = torch.full((1, 4, 1, 1), 2.0)
    loss = autoencoder_loss(off, target, mean=mean, log_variance=torch.zeros_like(mean), kl_weight=0.1)
    assert float(loss) == pytest.approx(0.25 + 0.2 * 0.5 + 0.1 * 2.0)


def test_the_diffusion_loss_weights_each_samples_error() -> None:
    noise = torch.zeros(2, 4, 2, 2)
    noise_pred = torch.stack([torch.full((4, 2, 2), 1.0), torch.full((4, 2, 2), 3.0)])
    assert diffusion_loss(noise_pred, noise, weights=torch.tensor([1.0, 0.5])) == pytest.approx((1 + 4.5) / 2)


class HalvingAutoencoder:
    """Encodes pixels to half of them, with a log-variance of 14, and decodes latents as they are."""

    def encode(self, pixels: Tensor) -> SimpleNamespace:
        assert torch.is_autocast_enabled("cpu")
        mean = pixels / 2
        log_variance = torch.full_like(mean, 14)  # large, since the weight of the divergence is 1e-6
        return SimpleNamespace(
            latent_dist=SimpleNamespace(mean=mean, logvar=log_variance, sample=lambda: mean.bfloat16())
        )

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latents)


def test_the_autoencoders_step_loss_compares_what_it_decodes_with_the_pixels() -> None:
    pixels = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = autoencoder_loss(
        (pixels / 2).bfloat16().float(), pixels, mean=pixels / 2, log_variance=torch.full_like(pixels, 14)
    )
    found = autoencoder_step_loss(HalvingAutoencoder(), pixels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.fixture
def batch() -> DiffusionBatch:
    generator = torch.Generator().manual_seed(0)
    return DiffusionBatch(
        indices=torch.tensor([4, 7]),
        token_ids=torch.tensor([[1, 2, 3], [4, 5, 6]]),
        noise=torch.randn(2, 4, 2, 2, generator=generator),
        noisy=torch.randn(2, 4, 2, 2, generator=generator),
        timesteps=torch.tensor([3, 500]),
        weights=torch.tensor([1.0, 0.25]),
    )


def encode_text(token_ids: Tensor) -> tuple[Tensor]:
    return (token_ids.float()[..., None],)


def predict_noise(noisy: Tensor, timesteps: Tensor, hidden_states: Tensor, **residuals: Any) -> tuple[Tensor]:
    """Stand in for a UNet: a sum of its inputs, so that each of them counts."""
    assert residuals.pop("return_dict") is False
    down = residuals.pop("down_block_additional_residuals", ())
    middle = residuals.pop("mid_block_additional_residual", torch.zeros(2))
    assert not residuals
    total = timesteps / 1000 + hidden_states.mean(dim=(1, 2)) + sum(down) + middle
    return (noisy + total.view(-1, 1, 1, 1),)


def control(
    noisy: Tensor, timesteps: Tensor, hidden_states: Tensor, edges: Tensor, *, return_dict: bool
) -> tuple[list[Tensor], Tensor]:
    """Stand in for a ControlNet: residuals that depend on each of its inputs."""
    assert not return_dict
    parts = [noisy.mean(dim=(1, 2, 3)), timesteps / 500, hidden_states.amax(dim=(1, 2))]
    return parts, 10 * edges.mean(dim=(1, 2, 3))


def weighted_error(batch: DiffusionBatch, total: Tensor) -> Tensor:
    errors = (batch.noisy + total.view(-1, 1, 1, 1) - batch.noise).square().mean(dim=(1, 2, 3))
    return (errors * batch.weights).sum() / 2


def test_the_denoisers_step_loss_is_the_weighted_error_of_its_noise(batch: DiffusionBatch) -> None:
    expected = weighted_error(batch, torch.tensor([0.003 + 2, 0.5 + 5]))
    torch.testing.assert_close(denoiser_step_loss(predict_noise, encode_text, batch), expected)


def test_the_controlnets_residuals_reach_the_noise_of_its_step_loss(batch: DiffusionBatch) -> None:
    edges = torch.zeros(2, 3, 16, 16)
    edges[1] = 1
    residuals = batch.noisy.mean(dim=(1, 2, 3)) + torch.tensor([0.006 + 3, 1.0 + 6 + 10])
    expected = weighted_error(batch, torch.tensor([0.003 + 2, 0.5 + 5]) + residuals)
    found = controlnet_step_loss(control, predict_noise, encode_text, batch=batch, edges=edges)
    torch.testing.assert_close(found, expected)
