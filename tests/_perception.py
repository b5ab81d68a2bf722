"""Random weights of LPIPS and a tiny random CLIP, with the structure of the trained ones."""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_lowercase

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

ALEXNET = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
"""Output channels, input channels and kernel size, by the layer's index."""


def lpips_weights(*, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for head, (index, (channels, before, side)) in enumerate(ALEXNET.items()):
        scale = (before * side * side) ** -0.5
        state[f"features.{index}.weight"] = scale * torch.randn(channels, before, side, side, generator=generator)
        state[f"features.{index}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        state[f"lin{head}.model.1.weight"] = torch.rand(1, channels, 1, 1, generator=generator)
    return state


def tiny_clip(*, seed: int = 0) -> CLIPModel:
    torch.manual_seed(seed)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = len(_vocabulary())
    text = {"vocab_size": tokens, "max_position_embeddings": 12, "bos_token_id": tokens - 2, "eos_token_id": tokens - 1}
    config = CLIPConfig(
        text_config=layers | text | {"pad_token_id": tokens - 1},
        vision_config=layers | {"image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    return CLIPModel(config).eval()


def tiny_processor(folder: Path) -> CLIPProcessor:
    folder.mkdir(parents=True, exist_ok=True)
    ends = {"bos_token": "<|startoftext|>", **dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **ends}
    contents = {"vocab.json": _vocabulary(), "tokenizer_config.json": config, "special_tokens_map.json": ends}
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return CLIPProcessor(images, CLIPTokenizer.from_pretrained(folder, local_files_only=True))


def save_tiny_clip(folder: Path) -> Path:
    tiny_processor(folder).save_pretrained(folder)
    tiny_clip().save_pretrained(folder)
    return folder


def _vocabulary() -> dict[str, int]:
    pieces = [*ascii_lowercase, *(f"{letter}</w>" for letter in ascii_lowercase), "<|startoftext|>", "<|endoftext|>"]
    return {piece: index for index, piece in enumerate(pieces)}
