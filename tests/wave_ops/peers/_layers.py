"""A self-attention of a tiny model, as methods receive it."""

from __future__ import annotations

import torch

from wave_ops.diffusion import StableDiffusion
from wave_ops.peers import AttentionLayer

__all__ = ["attention_layer", "tokens"]


def attention_layer(model: StableDiffusion) -> AttentionLayer:
    name = "up_blocks.3.attentions.0.transformer_blocks.0.attn1"
    attention = model.unet.get_submodule(name)
    return AttentionLayer(name=name, attention=attention, processor=attention.processor)


def tokens(frames: int, *, cells: int = 16, seed: int = 0) -> torch.Tensor:
    """Draw distinct tokens (branch, frame, token, channel) of three branches."""
    return torch.randn(3, frames, cells, 8, generator=torch.Generator().manual_seed(seed))
