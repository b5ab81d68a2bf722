"""What the branches of a UNet call are conditioned on: prompts and, for Stable Diffusion XL, sizes and pooled prompts.

Source: Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis" (2023), sec. 2.1
(text encoders) and 2.2 (original size, crop and target size, embedded with the timestep).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from wave_ops.diffusion import StableDiffusion, encode_prompt, tokenize

__all__ = ["Conditioning", "encode_prompts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """Encoded prompts, one for each branch of a UNet call."""

    text: Float[Tensor, "branch token channel"]
    """What cross-attention reads."""
    pooled: Float[Tensor, "branch pooled_channel"] | None = None
    """What is embedded with the timestep (SDXL); None for UNets that embed the timestep alone."""
    cell: int = 8
    """Pixels along each side of a latent cell."""

    def __len__(self) -> int:
        """Return the number of branches."""
        return len(self.text)

    def last(self, count: int) -> Conditioning:
        """Return that of the last branches."""
        pooled = None if self.pooled is None else self.pooled[-count:]
        return replace(self, text=self.text[-count:], pooled=pooled)

    def arguments(self, latents: Float[Tensor, "branch_frame channel height width"]) -> dict[str, Any]:
        """Return the arguments of a UNet or a ControlNet for a batch, branches outermost.

        The original and the target size are those of the frames, and nothing is cropped.

        Args:
            latents: the batch; each branch has the same number of frames.
        """
        frames = len(latents) // len(self)
        text = repeat(self.text, "b n c -> (b f) n c", f=frames)
        if self.pooled is None:
            return {"encoder_hidden_states": text}
        height, width = (side * self.cell for side in latents.shape[-2:])
        # Filled on the device: (original height, width, crop top, left, target height, width)
        sizes = self.pooled.new_zeros(len(latents), 6)
        sizes[:, 0::4], sizes[:, 1::4] = height, width
        pooled = repeat(self.pooled, "b c -> (b f) c", f=frames)
        return {"encoder_hidden_states": text, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}


@torch.inference_mode()
def encode_prompts(model: StableDiffusion, prompts: Sequence[str]) -> Conditioning:
    """Encode the prompts of a UNet call's branches.

    Args:
        model: with two text encoders, the states before the last layer of each are concatenated by channel, and the
            second one's projected embedding is the pooled one.
        prompts: one for each branch.
    """
    if model.text_encoder_2 is None:
        return Conditioning(text=torch.cat([encode_prompt(model, prompt) for prompt in prompts]), cell=model.vae_factor)
    texts, pooled = zip(*(_encode_twice(model, prompt) for prompt in prompts), strict=True)
    return Conditioning(text=torch.cat(texts), pooled=torch.cat(pooled), cell=model.vae_factor)


def _encode_twice(model: StableDiffusion, prompt: str) -> tuple[Tensor, Tensor]:
    outputs = [
        encoder(tokenize(tokenizer, prompt, device=model.device).input_ids, output_hidden_states=True)
        for tokenizer, encoder in (
            (model.tokenizer, model.text_encoder),
            (model.tokenizer_2, model.text_encoder_2),
        )
    ]
    text = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1).to(model.dtype)
    pooled = outputs[1].text_embeds.to(model.dtype)
    if model.zero_empty_prompt and not prompt:
        return torch.zeros_like(text), torch.zeros_like(pooled)
    return text, pooled
