"""Diffusion models with random weights, in memory: the speed and the memory of a model do not depend on its values."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final, Literal

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import nn
from transformers import BatchEncoding, CLIPTextConfig, CLIPTextModel

from wave_ops.diffusion import StableDiffusion
from wave_ops.feature_warping import PairWarps
from wave_ops.shuffle import reachable_pairs

__all__ = ["ModelWidth", "random_model", "random_warps"]

ModelWidth = Literal["tiny", "half", "full"]
"""Fraction of the channels of Stable Diffusion 1.5; "full" is its exact configuration."""

_UNET: Final = MappingProxyType(
    {"tiny": (32, 64, 64, 64), "half": (160, 320, 640, 640), "full": (320, 640, 1280, 1280)}
)
_VAE: Final = MappingProxyType({"tiny": (32, 32, 32, 32), "half": (64, 128, 256, 256), "full": (128, 256, 512, 512)})
_TEXT: Final = MappingProxyType({"tiny": (32, 2), "half": (384, 12), "full": (768, 12)})
"""Channels and layers of the text encoder."""
_CROSS, _CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_TOKENS, _WORDS = 77, 49408


class _Tokenizer:
    """Map every word to a token by its letters: a vocabulary is not needed where weights are random."""

    model_max_length = _TOKENS

    def __call__(self, prompt: str, **_: Any) -> BatchEncoding:
        words = [sum(map(ord, word)) % (_WORDS - 2) for word in prompt.split()][: _TOKENS - 2]
        ids = torch.tensor([[_WORDS - 2, *words, *[_WORDS - 1] * (_TOKENS - 1 - len(words))]])
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def random_model(
    width: ModelWidth,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    controlnet: bool = False,
) -> StableDiffusion:
    """Build a model of Stable Diffusion 1.5's structure with random weights, in evaluation mode.

    On CUDA its UNet's calls are recorded as CUDA graphs, as in a stage that has the memory.

    Args:
        width: "full" for the exact configuration.
        device: torch device of the networks.
        dtype: of the networks.
        controlnet: whether there is one.
    """
    torch.manual_seed(0)
    channels, layers = _TEXT[width]
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=_UNET[width],
            down_block_types=(_CROSS, _CROSS, _CROSS, "DownBlock2D"),
            up_block_types=("UpBlock2D", _CROSS_UP, _CROSS_UP, _CROSS_UP),
            cross_attention_dim=channels,
            attention_head_dim=8,
        )
        unet.conv_out.weight.data *= 0.2  # predictions as small as those of a trained network stay finite in float16
        vae = AutoencoderKL(
            block_out_channels=_VAE[width],
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=channels,
                intermediate_size=4 * channels,
                num_hidden_layers=layers,
                num_attention_heads=channels // 16 if width == "tiny" else 12,
            )
        )
        control = ControlNetModel.from_unet(unet) if controlnet else None

    def ready(network: Any) -> Any:
        # diffusers' own `to` warns of modules to keep in float32, where there are none
        return nn.Module.to(network, dtype=dtype).eval().requires_grad_(False)

    return StableDiffusion(
        tokenizer=_Tokenizer(),
        text_encoder=ready(text),
        vae=ready(vae),
        unet=ready(unet),
        scheduler_config={
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "set_alpha_to_one": False,
            "steps_offset": 1,
        },
        controlnet=control and ready(control),
        cuda_graphs=torch.device(device).type == "cuda",
    )


def random_warps(keyframes: int, size: tuple[int, int]) -> PairWarps | None:
    """Return smooth flows of a few pixels and masks of which 0.6 is set, for all pairs that an order can need.

    Args:
        keyframes: at least 1; a single one has no pairs.
        size: height and width of the frames, pixels.
    """
    pairs = reachable_pairs(keyframes)
    if not pairs:
        return None
    generator = torch.Generator().manual_seed(0)
    # A few fields, shared by all pairs: the flows of many keyframes would outweigh what is measured
    flows = torch.nn.functional.interpolate(
        torch.randn(4, 2, 4, 4, generator=generator) * 8, size=size, mode="bilinear"
    )
    masks = torch.nn.functional.interpolate(torch.rand(4, 1, 8, 8, generator=generator), size=size)[:, 0] < 0.6
    both = [(a, b) for pair in pairs for a, b in (pair, pair[::-1])]
    return PairWarps(
        flow_to_prev={pair: flows[i % 4] for i, pair in enumerate(both)},
        mask={pair: masks[i % 4] for i, pair in enumerate(both)},
    )
