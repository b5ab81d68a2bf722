"""Losses against their formulas."""

from __future__ import annotations

import pytest
import torch

from wave_ops.training.losses import autoencoder_loss, diffusion_loss, min_snr_weights


def test_a_perfect_autoencoder_with_unit_latents_loses_nothing() -> None:
    target, zero = torch.rand(2, 3, 4, 4), torch.zeros(2, 4, 1, 1)
    assert autoencoder_loss(target, target, mean=zero, log_variance=zero) == 0


def test_the_autoencoder_loss_is_squared_plus_a_fifth_of_absolute_error_plus_divergence() -> None:
    target, off = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    mean = torch.full((1, 4, 1, 1), 2.0)
    loss = autoencoder_loss(off, target, mean=mean, log_variance=torch.zeros_like(mean), kl_weight=0.1)
    assert float(loss) == pytest.approx(0.25 + 0.2 * 0.5 + 0.1 * 2.0)


def test_min_snr_leaves_noisy_steps_alone_and_damps_clean_ones() -> None:
    alphas_cumprod = torch.tensor([0.99, 0.5, 0.01])  # signal to noise 99, 1 and 1/99
    weights = min_snr_weights(alphas_cumprod, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(weights, torch.tensor([5 / 99, 1.0, 1.0]))


def test_the_diffusion_loss_weighs_samples() -> None:
    noise = torch.zeros(2, 4, 2, 2)
    noise_pred = torch.stack([torch.full((4, 2, 2), 1.0), torch.full((4, 2, 2), 3.0)])
    assert diffusion_loss(noise_pred, noise, weights=torch.tensor([1.0, 0.5])) == pytest.approx((1 + 4.5) / 2)
