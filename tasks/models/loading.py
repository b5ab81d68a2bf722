"""Diffusion models in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from tasks.models.checkpoints import ModelIdentity, NetworkIdentity
from wave_ops.diffusion import StableDiffusion

__all__ = ["loaded_model"]

_IN_USE = threading.Lock()


@contextmanager
def loaded_model(
    model: ModelIdentity, controlnet: NetworkIdentity | None = None, *, device: str, dtype: str
) -> Iterator[StableDiffusion]:
    """Lend the loaded model to one stage at a time: its UNet holds hooks while in use.

    A worker keeps the model it used last, so a bulk edit loads it once.
    """
    with _IN_USE:
        yield _load(model, controlnet, device, dtype)


@lru_cache(maxsize=1)
def _load(model: ModelIdentity, controlnet: NetworkIdentity | None, device: str, dtype: str) -> StableDiffusion:
    disable_progress_bar()  # the stage has a bar of its own
    folder, variants = Path(model.location), dict(model.variants)

    def network(family: Any, path: Path, variant: str | None) -> Any:
        loaded = family.from_pretrained(
            path,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            torch_dtype=getattr(torch, dtype),
            **_quiet(family),
        )
        return loaded.to(device).eval().requires_grad_(False)

    return StableDiffusion(
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        text_encoder=network(CLIPTextModel, folder / "text_encoder", variants["text_encoder"]),
        vae=network(AutoencoderKL, folder / "vae", variants["vae"]),
        unet=network(UNet2DConditionModel, folder / "unet", variants["unet"]),
        controlnet=controlnet and network(ControlNetModel, Path(controlnet.location), controlnet.variant),
        scheduler_config=_read(folder / "scheduler" / "scheduler_config.json"),
        sites=(_read(folder / "model_index.json").get("wave") or {}).get("sites"),
    )


def _quiet(family: Any) -> dict[str, bool]:
    """Choose plain loading for diffusers' networks, which would otherwise advise a package that is not needed."""
    return {} if family is CLIPTextModel else {"low_cpu_mem_usage": False}


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
