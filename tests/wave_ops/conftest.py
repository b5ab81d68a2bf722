"""Random-weight models of Stable Diffusion's exact structure, small enough for a test."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import BatchEncoding, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests._sdxl import sdxl_unet
from wave_ops.diffusion import StableDiffusion
from wave_ops.feature_warping import PairWarps

EPSILON = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
CROSS, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


class WordTokenizer:
    """Maps each word to a token by its letters, and pads to the length."""

    model_max_length = 8

    def __call__(self, prompt: str, **_: Any) -> Any:
        words = [sum(map(ord, word)) % 98 for word in prompt.split()][:7]
        ids = torch.tensor([[98, *words, *[99] * (7 - len(words))]])
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def build_model(*, scheduler: dict[str, Any] | None = None, controlnet: bool = False, seed: int = 0) -> StableDiffusion:
    torch.manual_seed(seed)
    widths = (8, 16, 16, 16)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=widths,
        down_block_types=(CROSS, CROSS, CROSS, "DownBlock2D"),
        up_block_types=("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    text = CLIPTextConfig(
        vocab_size=100,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=98,
        eos_token_id=99,
        pad_token_id=99,
    )
    unet.conv_out.weight.data *= 0.2  # as smooth in its input as a trained UNet
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    )
    control = build_controlnet(unet) if controlnet else None
    model = StableDiffusion(
        tokenizer=WordTokenizer(),
        text_encoder=CLIPTextModel(text).eval(),
        vae=vae.eval(),
        unet=unet.eval(),
        scheduler_config=EPSILON | (scheduler or {}),
        controlnet=control,
    )
    for part in (model.text_encoder, model.vae, model.unet, model.controlnet):
        if part is not None:
            part.requires_grad_(False)
    return model


def build_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """Build a ControlNet for a UNet that has an effect: in a new one some layers are zeros."""
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8, 8, 8))
    torch.nn.init.normal_(control.controlnet_cond_embedding.conv_out.weight)
    for layer in [*control.controlnet_down_blocks, control.controlnet_mid_block]:
        torch.nn.init.normal_(layer.weight, std=0.1)
    return control.eval().requires_grad_(False)


def build_xl_model(*, seed: int = 0, controlnet: bool = False) -> StableDiffusion:
    """Build a model of Stable Diffusion XL's structure: three levels, the first and the last without attention."""
    model = build_model(seed=seed)
    unet = sdxl_unet(width=8, heads=(2, 2, 2), texts=16 + 24, pooled=12)
    text = model.text_encoder.config.to_dict() | {"hidden_size": 24, "num_hidden_layers": 3, "projection_dim": 12}
    second = CLIPTextModelWithProjection(CLIPTextConfig(**text))
    parts = {"unet": unet.eval().requires_grad_(False), "text_encoder_2": second.eval().requires_grad_(False)}
    control = build_controlnet(parts["unet"]) if controlnet else None
    return replace(model, **parts, tokenizer_2=WordTokenizer(), zero_empty_prompt=True, controlnet=control)


@pytest.fixture(scope="session")
def xl_model() -> StableDiffusion:
    return build_xl_model(controlnet=True)


@pytest.fixture(scope="session")
def model() -> StableDiffusion:
    return build_model(controlnet=True)


@pytest.fixture(scope="session")
def v_model() -> StableDiffusion:
    return build_model(scheduler={"prediction_type": "v_prediction"}, seed=1)


@pytest.fixture
def make_warps():
    """Return a function that draws small random flows and masks for all pairs of `count` keyframes."""

    def make(
        count: int, *, size: tuple[int, int] = (128, 128), seed: int = 0, flow: float = 12.0, mask: float = 0.6
    ) -> PairWarps:
        if count == 1:
            return PairWarps(flow_to_prev={}, mask={})
        generator = torch.Generator().manual_seed(seed)
        pairs = list(combinations(range(count), 2))
        shape = (len(pairs), *size)
        coarse = torch.randn(2 * len(pairs), 2, 4, 4, generator=generator) * flow
        flows = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
        masks = (
            torch.nn.functional.interpolate(
                torch.rand(2, len(pairs), 8, 8, generator=generator), size=size, mode="nearest"
            )
            < mask
        )
        assert masks.shape[1:] == shape
        return PairWarps.from_pairs(
            pairs, to_prev=flows[: len(pairs)], to_cur=flows[len(pairs) :], mask_cur=masks[0], mask_prev=masks[1]
        )

    return make
