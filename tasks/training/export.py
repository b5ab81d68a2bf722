"""Export of the trained parts to a model folder in the diffusers layout."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers import AutoencoderKL
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.training.controlnet import load_controlnet
from tasks.training.files import write_text
from tasks.training.unet import load_denoiser
from wave_ops.training.modules import build_controlnet, build_scheduler

__all__ = ["export_model"]

_ADVICE: Final = {
    "guidance_scale": 3.0,
    "negative_prompt": "",  # the usual one has words that the training never used
    "injection": 0.5,
    "feature_injection": 0.5,
    "keep": True,
}
"""Recommended settings."""


@task(name="Export the model", cache_policy=NO_CACHE, persist_result=False)
def export_model(
    work_folder: str,
    output: str,
    *,
    tokenizer_folder: str,
    unet_checkpoint: str,
    controlnet_checkpoint: str | None,
) -> str:
    """Write the model folder in half precision; the files of an older one are replaced one by one.

    Args:
        work_folder: folder of the rescaled autoencoder.
        output: folder of the model.
        tokenizer_folder: from `build_tokenizer`.
        unet_checkpoint: from `train_unet`.
        controlnet_checkpoint: from `train_controlnet`; None for an untrained ControlNet, which changes nothing.

    Returns:
        The folder of the model.
    """
    target = Path(output)
    unet, text_encoder = load_denoiser(unet_checkpoint, tokenizer_folder)
    controlnet = load_controlnet(controlnet_checkpoint, unet) if controlnet_checkpoint else build_controlnet(unet)
    parts = {
        "text_encoder": text_encoder,
        "vae": AutoencoderKL.from_pretrained(Path(work_folder) / "vae", use_safetensors=True),
        "unet": unet,
        "controlnet": controlnet,
        "scheduler": build_scheduler(),
    }
    for name, part in parts.items():
        _replace_part(target / name, part)
    _replace_folder(target / "tokenizer", Path(tokenizer_folder))
    write_text(target / "model_index.json", json.dumps(_index(), indent=2) + "\n")
    return str(target)


def _replace_part(target: Path, part: Any) -> None:
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    if isinstance(part, torch.nn.Module):
        part = part.half()
    part.save_pretrained(staged)
    for config in staged.glob("*.json"):
        _drop_local_path(config)
    _replace_folder(target, staged)
    shutil.rmtree(staged)


def _drop_local_path(config: Path) -> None:
    """Drop the name of the folder that a part was loaded from."""
    values = json.loads(config.read_text(encoding="utf-8"))
    kept = {key: value for key, value in values.items() if key != "_name_or_path"}
    config.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _replace_folder(target: Path, source: Path) -> None:
    """Copy a folder's files one by one; each of them is replaced atomically."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        unfinished = target / f".{file.name}.{os.getpid()}"
        shutil.copyfile(file, unfinished)
        unfinished.replace(target / file.name)


def _index() -> dict[str, object]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "wave": _ADVICE,
    }
