"""Random-weight checkpoints in the diffusers layout, with the exact structure of Stable Diffusion 1.5, 2.1 and XL.

The same levels, cross-attention in the same blocks, as many layers and transformers; only the widths are reduced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests._sdxl import sdxl_unet

SHARED_TOKENIZER = Path(__file__).parents[2] / "shared" / "weights" / "sd1_tokenizer"
WORDS = ("a", "an", "red", "blue", "circle", "square", "over", "background", "green", "star")
WIDTHS = (32, 64, 64, 64)


def save_sd15(folder: Path, *, dtype: torch.dtype = torch.float32, variant: str | None = None) -> Path:
    """Save a checkpoint of Stable Diffusion 1.5's structure: epsilon, 8 heads, convolutional projections, PNDM."""
    return _save(
        folder,
        unet={"attention_head_dim": 8, "cross_attention_dim": 32},
        text={"hidden_size": 32, "num_hidden_layers": 2, "hidden_act": "quick_gelu"},
        scheduler={"_class_name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": False},
        dtype=dtype,
        variant=variant,
    )


def save_sd21(folder: Path, *, dtype: torch.dtype = torch.float32, variant: str | None = None) -> Path:
    """Save a checkpoint of Stable Diffusion 2.1's structure: v-prediction, heads per level, linear projections."""
    return _save(
        folder,
        unet={"attention_head_dim": [2, 4, 4, 4], "use_linear_projection": True, "cross_attention_dim": 64},
        text={"hidden_size": 64, "num_hidden_layers": 3, "hidden_act": "gelu"},
        scheduler={
            "_class_name": "DDIMScheduler",
            "prediction_type": "v_prediction",
            "clip_sample": False,
            "set_alpha_to_one": False,
        },
        dtype=dtype,
        variant=variant,
    )


def save_sdxl(folder: Path) -> Path:
    """Save a checkpoint of Stable Diffusion XL's structure: three levels, two text encoders, embedded sizes, Euler."""
    torch.manual_seed(0)
    length, tokens = _save_tokenizer(folder / "tokenizer")
    _save_tokenizer(folder / "tokenizer_2")
    padding = folder / "tokenizer_2" / "tokenizer_config.json"
    padding.write_text(padding.read_text().replace('"pad_token": "<|endoftext|>"', '"pad_token": "a"'))
    unet = sdxl_unet(width=16, heads=(2, 4, 4), texts=32 + 48, pooled=24)
    second = _text_config(tokens, length, hidden_size=48, num_hidden_layers=3, hidden_act="gelu", projection_dim=24)
    networks = {
        "unet": unet,
        "vae": _vae(force_upcast=True),
        "text_encoder": _text_encoder(tokens, length, hidden_size=32, num_hidden_layers=2, hidden_act="quick_gelu"),
        "text_encoder_2": CLIPTextModelWithProjection(second),
    }
    for name, network in networks.items():
        network.save_pretrained(folder / name)
    scheduler = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "clip_sample": False}
    _write_json(folder / "scheduler" / "scheduler_config.json", _BETAS | scheduler | {"set_alpha_to_one": False})
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    _write_json(folder / "model_index.json", _INDEX | index)
    return folder


def save_controlnet(folder: Path, checkpoint: Path) -> Path:
    """Save a ControlNet for a checkpoint, with random output layers, so that it has an effect."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    for layer in [*network.controlnet_down_blocks, network.controlnet_mid_block]:
        torch.nn.init.normal_(layer.weight, std=0.1)
    network.save_pretrained(folder)
    return folder


def _save(
    folder: Path,
    *,
    unet: dict[str, Any],
    text: dict[str, Any],
    scheduler: dict[str, Any],
    dtype: torch.dtype,
    variant: str | None,
) -> Path:
    torch.manual_seed(0)
    length, tokens = _save_tokenizer(folder / "tokenizer")
    networks = {
        "unet": _unet(**unet),
        "vae": _vae(force_upcast=False),  # as in the published ones, which do not say
        "text_encoder": _text_encoder(tokens, length, **text),
    }
    for name, network in networks.items():
        network.to(dtype).save_pretrained(folder / name, variant=variant)
    _write_json(folder / "scheduler" / "scheduler_config.json", _BETAS | scheduler)
    _write_json(folder / "model_index.json", _INDEX)
    return folder


_BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _unet(**changes: Any) -> UNet2DConditionModel:
    cross, up = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    network = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=WIDTHS,
        down_block_types=(cross, cross, cross, "DownBlock2D"),
        up_block_types=("UpBlock2D", up, up, up),
        layers_per_block=2,
        norm_num_groups=8,
        **changes,
    )
    network.conv_out.weight.data *= 0.2  # as smooth in its input as a trained UNet
    return network


def _vae(**changes: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
        **changes,
    )


def _text_encoder(tokens: int, length: int, **changes: Any) -> CLIPTextModel:
    return CLIPTextModel(_text_config(tokens, length, **changes))


def _text_config(tokens: int, length: int, **changes: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=tokens,
        intermediate_size=64,
        num_attention_heads=4,
        max_position_embeddings=length,
        bos_token_id=tokens - 2,
        eos_token_id=tokens - 1,
        pad_token_id=tokens - 1,
        **changes,
    )


def _save_tokenizer(folder: Path) -> tuple[int, int]:
    """Save the tokenizer of Stable Diffusion 1 if available, else a tiny one; return its length and vocabulary size."""
    folder.mkdir(parents=True)
    if SHARED_TOKENIZER.is_dir():
        for file in SHARED_TOKENIZER.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return 77, 49408
    letters = sorted(set("".join(WORDS)))
    merges = [
        f"{word[: i + 1]} {word[i + 1]}{'</w>' * (i + 2 == len(word))}" for word in WORDS for i in range(len(word) - 1)
    ]
    pieces = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *dict.fromkeys(merge.replace(" ", "") for merge in merges),
    ]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    _write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(dict.fromkeys(merges)) + "\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    _write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    )
    _write_json(folder / "special_tokens_map.json", special)
    return 77, len(vocabulary)


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))
