"""Modules of the embedded model with untrained weights, and its scheduler."""

from __future__ import annotations

from typing import Any, Final

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from jaxtyping import Float, Float32
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

__all__ = [
    "SAMPLE_SIZE",
    "build_autoencoder",
    "build_controlnet",
    "build_scheduler",
    "build_text_encoder",
    "build_unet",
]

SAMPLE_SIZE: Final = 128
"""Side of a training frame, in pixels."""

_AUTOENCODER_CHANNELS: Final = (16, 32, 64, 64)
_UNET_CHANNELS: Final = (32, 64, 128)
_TEXT_WIDTH: Final = 128
_LATENT_CHANNELS: Final = 4


def build_autoencoder() -> nn.Module:
    """Build an AutoencoderKL of factor 8 with random weights."""
    levels = len(_AUTOENCODER_CHANNELS)
    model: nn.Module = AutoencoderKL(
        block_out_channels=_AUTOENCODER_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=_LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SAMPLE_SIZE,
    )
    return model


def build_unet() -> nn.Module:
    """Build a UNet2DConditionModel with cross-attention at every resolution and random weights."""
    levels = len(_UNET_CHANNELS)
    model: nn.Module = UNet2DConditionModel(
        sample_size=SAMPLE_SIZE // 2 ** (len(_AUTOENCODER_CHANNELS) - 1),
        block_out_channels=_UNET_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        layers_per_block=1,
        cross_attention_dim=_TEXT_WIDTH,
        # Stable Diffusion's configs use this name for the number of heads
        attention_head_dim=(2, 4, 4),
        norm_num_groups=16,
    )
    return model


def build_controlnet(unet: nn.Module) -> nn.Module:
    """Build a ControlNetModel that starts as a copy of the UNet's encoder and downsamples its image as the VAE does."""
    model: nn.Module = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=_AUTOENCODER_CHANNELS, load_weights_from_unet=True
    )
    # in float32, at the image's full size, it takes more than half of a training step
    model.controlnet_cond_embedding = _EdgesEmbedding(_UNET_CHANNELS[0], block_out_channels=_AUTOENCODER_CHANNELS)
    return model


class _EdgesEmbedding(ControlNetConditioningEmbedding):  # type: ignore[misc]  # diffusers has no types
    """ControlNet's embedding of its image, computed in bfloat16 with channels last."""

    def forward(
        self, conditioning: Float[Tensor, "batch 3 height width"]
    ) -> Float32[Tensor, "batch channel rows columns"]:
        """Embed images at an eighth of their size."""
        with torch.autocast(conditioning.device.type, torch.bfloat16):
            embedding: Tensor = super().forward(conditioning.to(memory_format=torch.channels_last))
        return embedding.float()


def build_text_encoder(vocabulary_size: int, *, length: int, special: tuple[int, int]) -> nn.Module:
    """Build a two-layer CLIPTextModel with random weights.

    Args:
        vocabulary_size: number of token ids.
        length: tokens of a text, padding included.
        special: ids of a text's first and last token.
    """
    config = CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=_TEXT_WIDTH,
        intermediate_size=2 * _TEXT_WIDTH,
        projection_dim=_TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=length,
        bos_token_id=special[0],
        eos_token_id=special[1],
        pad_token_id=special[1],
    )
    model: nn.Module = CLIPTextModel(config)
    return model


def build_scheduler() -> Any:
    """Build the DDIMScheduler with Stable Diffusion 1.5's betas."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )
