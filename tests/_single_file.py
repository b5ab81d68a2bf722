"""The layout of checkpoints in one file (LDM), written from the diffusers layout: the inverse of diffusers' reading."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Weights = dict[str, Tensor]
LAYERS = 2

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_OPEN_CLIP = {
    "encoder.layers.": "transformer.resblocks.",
    "self_attn.": "attn.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "final_layer_norm": "ln_final",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
}


def save_single_file(file: Path, folder: Path, *, vae: bool = True, metadata: dict[str, str] | None = None) -> Path:
    """Save a folder in the diffusers layout as one file in the layout of its authors; SDXL has two text encoders."""
    tensors = {f"model.diffusion_model.{k}": v for k, v in unet_to_ldm(weights(folder / "unet")).items()}
    if vae:
        tensors |= {f"first_stage_model.{k}": v for k, v in vae_to_ldm(weights(folder / "vae")).items()}
    text = weights(folder / "text_encoder")
    if (folder / "text_encoder_2").is_dir():
        second = text_to_open_clip(weights(folder / "text_encoder_2"))
        tensors |= {f"conditioner.embedders.0.transformer.text_model.{k}": v for k, v in text.items()}
        tensors |= {f"conditioner.embedders.1.model.{k}": v for k, v in second.items()}
    elif _activation(folder) == "gelu":
        tensors |= {f"cond_stage_model.model.{k}": v for k, v in text_to_open_clip(text).items()}
    else:
        tensors |= {f"cond_stage_model.transformer.text_model.{k}": v for k, v in text.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata=metadata)
    return file


def weights(folder: Path) -> Weights:
    (file,) = folder.glob("*.safetensors")
    return {name.removeprefix("text_model."): tensor for name, tensor in load_file(file).items()}


def _activation(folder: Path) -> str:
    found = re.search(r'"hidden_act": "(\w+)"', (folder / "text_encoder" / "config.json").read_text())
    assert found
    return found[1]


def unet_to_ldm(tensors: Weights) -> Weights:
    with_attention = {m[1] for name in tensors if (m := re.match(r"(up_blocks\.\d+)\.attentions", name))}
    return {_unet_name(name, with_attention): tensor for name, tensor in tensors.items()}


def _unet_name(name: str, with_attention: set[str]) -> str:
    for ours, theirs in _UNET.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    side, level, part, index, rest = _parts(name)
    if part == "resnets":
        first, _, last = rest.partition(".")
        rest = f"{_RESNET[first]}.{last}"
    if side == "mid_block":
        return f"middle_block.{1 if part == 'attentions' else 2 * index}.{rest}"
    if part == "downsamplers":
        return f"input_blocks.{(LAYERS + 1) * (level + 1)}.0.{rest.replace('conv', 'op')}"
    if part == "upsamplers":
        place = 2 if f"up_blocks.{level}" in with_attention else 1
        return f"output_blocks.{(LAYERS + 1) * level + LAYERS}.{place}.{rest}"
    block = f"input_blocks.{(LAYERS + 1) * level + index + 1}" if side == "down_blocks" else ""
    block = block or f"output_blocks.{(LAYERS + 1) * level + index}"
    return f"{block}.{int(part == 'attentions')}.{rest}"


def _parts(name: str) -> tuple[str, int, str, int, str]:
    found = re.fullmatch(r"(mid_block|down_blocks|up_blocks)(?:\.(\d+))?\.([a-z]+)\.(\d+)\.(.*)", name)
    assert found, name
    return found[1], int(found[2] or 0), found[3], int(found[4]), found[5]


def vae_to_ldm(tensors: Weights) -> Weights:
    levels = 1 + max(int(m[1]) for name in tensors if (m := re.search(r"up_blocks\.(\d+)", name)))
    return dict(_vae_item(name, tensor, levels) for name, tensor in tensors.items())


def _vae_item(name: str, tensor: Tensor, levels: int) -> tuple[str, Tensor]:
    if ".attentions.0." in name:
        for ours, theirs in {
            "group_norm": "norm",
            "to_q": "q",
            "to_k": "k",
            "to_v": "v",
            "to_out.0": "proj_out",
        }.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        return name, tensor[..., None, None] if tensor.ndim == 2 else tensor
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out"), tensor


def text_to_open_clip(tensors: Weights) -> Weights:
    renamed: Weights = {}
    for name, tensor in tensors.items():
        for ours, theirs in _OPEN_CLIP.items():
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    for query in [name for name in renamed if ".q_proj." in name]:
        parts = [renamed.pop(query.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        renamed[query.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    if (projection := renamed.pop("text_projection.weight", None)) is not None:
        renamed["text_projection"] = projection.T
    return renamed
