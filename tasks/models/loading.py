"""Loading of diffusion models."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
_CONTROLNETS = 4  # that a process keeps
_LOG = logging.getLogger(__name__)


@contextmanager
def loaded_model(
    model: ModelIdentity, controlnet: NetworkIdentity | None = None, *, device: str, dtype: str
) -> Iterator[StableDiffusion]:
    """Load a model and lend it to one stage at a time, since its UNet has hooks while in use.

    A process keeps one checkpoint, and ControlNets apart from it: stages and clips that need the same ones, whatever
    their prompts, load them once. Another checkpoint, device or dtype takes the place of the one that was kept.

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
        loaded = _load(model, device, dtype)
        if controlnet is not None:
            loaded = replace(loaded, controlnet=_load_controlnet(controlnet, device, dtype))
        yield loaded


@lru_cache(maxsize=1)
def _load(model: ModelIdentity, device: str, dtype: str) -> StableDiffusion:
    disable_progress_bar()  # the stage shows its own progress
    folder, variants = Path(model.location), dict(model.variants)

    def network(family: Any, part: str) -> Any:
        return _network(family, folder / part, variants[part], device=device, dtype=dtype)

    return StableDiffusion(
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        text_encoder=network(CLIPTextModel, "text_encoder"),
        vae=network(AutoencoderKL, "vae"),
        unet=network(UNet2DConditionModel, "unet"),
        scheduler_config=_read(folder / "scheduler" / "scheduler_config.json"),
        sites=(_read(folder / "model_index.json").get("wave") or {}).get("sites"),
    )


@lru_cache(maxsize=_CONTROLNETS)
def _load_controlnet(controlnet: NetworkIdentity, device: str, dtype: str) -> Any:
    return _network(ControlNetModel, Path(controlnet.location), controlnet.variant, device=device, dtype=dtype)


def _network(family: Any, path: Path, variant: str | None, *, device: str, dtype: str) -> Any:
    loaded = family.from_pretrained(
        path, variant=variant, use_safetensors=True, local_files_only=True, torch_dtype=getattr(torch, dtype)
    )
    return _ready(loaded, path.name, device)


def _ready(network: Any, name: str, device: str) -> Any:
    """Move a network to its device, check its weights, and make it ready for inference."""
    check_finite_weights(network.to(device), name)
    return network.eval().requires_grad_(False)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
