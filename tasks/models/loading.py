"""Loading of diffusion models."""

from __future__ import annotations

import json
import logging
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
from wave_ops.finite import check_finite_weights

__all__ = ["loaded_model"]

_IN_USE = threading.Lock()
_LOG = logging.getLogger(__name__)


@contextmanager
def loaded_model(
    model: ModelIdentity, controlnet: NetworkIdentity | None = None, *, device: str, dtype: str
) -> Iterator[StableDiffusion]:
    """Load a model and lend it to one stage at a time, since its UNet has hooks while in use.

    A process keeps one model: the last combination of checkpoint, ControlNet, device and dtype. Stages that need the
    same combination load it once. Any other combination loads everything again, even if only the ControlNet differs.

    Args:
        model: from `resolve_model`.
        controlnet: from `resolve_controlnet`.
        device: torch device of the networks.
        dtype: name of their torch dtype, such as float16.

    Yields:
        The model in evaluation mode, without gradients.

    Raises:
        NonFiniteError: if weights are NaN or infinite in that dtype.
    """
    with _IN_USE:
        _LOG.info("The networks of %s run on %s in %s", model.name, device, dtype)
        yield _load(model, controlnet, device, dtype)


@lru_cache(maxsize=1)
def _load(model: ModelIdentity, controlnet: NetworkIdentity | None, device: str, dtype: str) -> StableDiffusion:
    disable_progress_bar()  # the stage shows its own progress
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
        check_finite_weights(loaded.to(device), path.name)
        return loaded.eval().requires_grad_(False)

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
    """Turn off diffusers' loading through accelerate, which logs a warning where that package is missing."""
    return {} if family is CLIPTextModel else {"low_cpu_mem_usage": False}


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
