"""Modules of the embedded model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding

from wave_ops.training.modules import (
    SAMPLE_SIZE,
    build_autoencoder,
    build_controlnet,
    build_scheduler,
    build_text_encoder,
    build_unet,
)


@pytest.fixture(scope="module")
def unet() -> Any:
    torch.manual_seed(0)
    return build_unet().eval()


@torch.no_grad()
def test_unet_text_encoder_and_controlnet_fit_together(unet: Any) -> None:
    encoder: Any = build_text_encoder(99, length=12, special=(97, 98)).eval()
    controlnet: Any = build_controlnet(unet).eval()
    hidden_states = encoder(torch.randint(99, (2, 12)))[0]
    latents, timesteps = torch.randn(2, 4, 16, 16), torch.tensor([5, 900])
    edges = torch.rand(2, 3, SAMPLE_SIZE, SAMPLE_SIZE)
    down, middle = controlnet(latents, timesteps, hidden_states, edges, return_dict=False)
    steered = unet(
        latents,
        timesteps,
        hidden_states,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]
    # An untrained ControlNet changes nothing
    torch.testing.assert_close(steered, unet(latents, timesteps, hidden_states, return_dict=False)[0])
    assert steered.shape == latents.shape


def test_the_unets_sample_size_is_that_of_the_latents_of_a_training_frame(unet: Any) -> None:
    autoencoder: Any = build_autoencoder()
    factor = 2 ** (len(autoencoder.config.block_out_channels) - 1)
    assert unet.config.sample_size * factor == SAMPLE_SIZE


def test_the_noise_schedule_is_that_of_stable_diffusion() -> None:
    alphas_cumprod = build_scheduler().alphas_cumprod
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    torch.testing.assert_close(alphas_cumprod, torch.cumprod(1 - betas, dim=0))


@torch.no_grad()
def test_edges_are_embedded_as_by_the_module_of_diffusers_except_for_rounding(unet: Any) -> None:
    embedding: Any = build_controlnet(unet).controlnet_cond_embedding
    torch.nn.init.normal_(embedding.conv_out.weight, std=0.05)  # it is initialised with zeros
    published = ControlNetConditioningEmbedding(32, block_out_channels=(16, 32, 64, 64))
    published.load_state_dict(embedding.state_dict())
    edges = (torch.rand(2, 3, SAMPLE_SIZE, SAMPLE_SIZE) > 0.9).float()
    expected, found = published(edges), embedding(edges)
    assert found.dtype == torch.float32
    assert (found - expected).square().mean() < 1e-4 * expected.square().mean()
