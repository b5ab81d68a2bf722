"""Loading of diffusion models."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    MultiControlNetModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from tasks.errors import TaskInputError
from tasks.models.architecture import is_xl, zeroes_empty_prompt
from tasks.models.checkpoints import ModelIdentity, NetworkIdentity
from tasks.models.lora import with_loras
from tasks.models.single_file import tokenizer_folder
from wave_ops.diffusion import StableDiffusion
from wave_ops.finite import check_finite_weights
from wave_ops.sites import resolve_sites
from wave_ops.unet import compile_blocks, uncompile_blocks

__all__ = ["loaded_model"]

_IN_USE = threading.Lock()
_CONTROLNETS = 4  # that a process keeps
_LOG = logging.getLogger(__name__)


@contextmanager
def loaded_model(
    model: ModelIdentity,
    controlnets: NetworkIdentity | Sequence[NetworkIdentity] | None = None,
    *,
    device: str,
    dtype: str,
    compiled: bool = False,
) -> Iterator[StableDiffusion]:
    """Load a model and lend it to one stage at a time, since its UNet has hooks while in use.

    A process keeps one checkpoint, and ControlNets apart from it: stages and clips that need the same ones, whatever
    their prompts and LoRAs, load them once. LoRAs are added for the stage and taken back after it. Another checkpoint,
    device or dtype takes the place of the one that was kept.

    Args:
        model: from `resolve_model`.
        controlnets: one from `resolve_controlnet`, or several.
        device: torch device of the networks.
        dtype: name of their torch dtype, such as float16.
        compiled: whether the UNet's blocks are compiled, but for a stage with LoRAs, which change its structure.

    Yields:
        The model in evaluation mode, without gradients.

    Raises:
        NonFiniteError: if weights are NaN or infinite in that dtype.
        TaskInputError: if a checkpoint in one file is incomplete, or a LoRA does not fit.
    """
    with _IN_USE:
        _LOG.info("The networks of %s run on %s in %s", model.name, device, dtype)
        loaded = _load(model.base or model, device, dtype)
        wanted = [controlnets] if isinstance(controlnets, NetworkIdentity) else controlnets or ()
        networks = [_load_controlnet(each, device, dtype) for each in wanted]
        if networks:
            loaded = replace(loaded, controlnet=networks[0] if len(networks) == 1 else MultiControlNetModel(networks))
        if compiled and not model.loras:
            compile_blocks(loaded.unet, sites=resolve_sites(loaded.unet, sites=loaded.sites))
        else:
            uncompile_blocks(loaded.unet)
        with with_loras(loaded, model.loras) if model.loras else nullcontext():
            yield loaded


@lru_cache(maxsize=1)
def _load(model: ModelIdentity, device: str, dtype: str) -> StableDiffusion:
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()  # the stage shows its own progress
    folder = Path(model.location)
    index = _read(folder / "model_index.json")
    tokenizers = {name: _tokenizer(folder / name) for name in ("tokenizer", "tokenizer_2")[: 1 + is_xl(index)]}
    vae = _load_vae(model, device, "float32" if model.upcast_vae else dtype)
    read = _read_file if model.file else _read_folder
    return StableDiffusion(
        **tokenizers,
        **read(model, tokenizers, device=device, dtype=dtype),
        vae=vae,
        zero_empty_prompt=zeroes_empty_prompt(index),
        scheduler_config=_read(folder / "scheduler" / "scheduler_config.json"),
        sites=(index.get("wave") or {}).get("sites"),
    )


def _read_folder(model: ModelIdentity, _: Any, *, device: str, dtype: str) -> dict[str, Any]:
    """Read the text encoders and the UNet of a checkpoint in the diffusers layout."""
    folder, variants = Path(model.location), dict(model.variants)

    def network(family: Any, part: str) -> Any:
        return _network(family, folder / part, variants[part], device=device, dtype=dtype)

    families = {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "unet": UNet2DConditionModel,
    }
    return {part: network(family, part) for part, family in families.items() if part in variants}


def _read_file(model: ModelIdentity, tokenizers: dict[str, Any], *, device: str, dtype: str) -> dict[str, Any]:
    """Read the text encoders and the UNet of a checkpoint in one file."""
    second = "tokenizer_2" in tokenizers
    family = StableDiffusionXLPipeline if second else StableDiffusionPipeline
    others = {"image_encoder": None} if second else {"safety_checker": None, "requires_safety_checker": False}
    with _reading(f"checkpoint {model.file}"):
        pipeline = family.from_single_file(
            model.file,
            config=model.location,
            local_files_only=True,
            torch_dtype=getattr(torch, dtype),
            **tokenizers,
            vae=None,
            feature_extractor=None,
            **others,
        )
    names = ("text_encoder", *(["text_encoder_2"] if second else []), "unet")
    networks = {name: getattr(pipeline, name) for name in names}
    for name, network in networks.items():
        _check_complete(network, f"{name} of {model.file}")
    return {name: _ready(network, name, device) for name, network in networks.items()}


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Map the errors of diffusers' reading of one file: a name or a shape that the configs do not have, or no value."""
    try:
        yield
    except (NotImplementedError, ValueError, RuntimeError, KeyError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TaskInputError(f"The {what} is incomplete, or does not fit its configs: {reason}") from None


def _check_complete(network: Any, name: str) -> None:
    """Check that a file had a value for each parameter: diffusers leaves the others on the meta device.

    Raises:
        TaskInputError: with the first one that is missing.
    """
    missing = next((key for key, value in network.named_parameters() if value.is_meta), "")
    if missing:
        raise TaskInputError(f"The {name} is incomplete: it has no weights for {missing}.")


def _tokenizer(folder: Path) -> Any:
    found = tokenizer_folder(folder)
    options = {} if found == folder else {"pad_token": _read(folder / "tokenizer_config.json")["pad_token"]}
    return CLIPTokenizer.from_pretrained(found, local_files_only=True, **options)


def _load_vae(model: ModelIdentity, device: str, dtype: str) -> Any:
    """Load the VAE that takes the place of a checkpoint's own, or its own."""
    if model.vae and Path(model.vae.location).is_dir():
        return _network(AutoencoderKL, Path(model.vae.location), model.vae.variant, device=device, dtype=dtype)
    file = model.vae.location if model.vae else model.file
    if file is None:
        variant = dict(model.variants)["vae"]
        return _network(AutoencoderKL, Path(model.location) / "vae", variant, device=device, dtype=dtype)
    with _reading(f"VAE {file}"):
        network = AutoencoderKL.from_single_file(
            file,
            config=model.location,
            subfolder="vae",
            local_files_only=True,
            torch_dtype=getattr(torch, dtype),
        )
    _check_complete(network, f"VAE {file}")
    return _ready(network, "vae", device)


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
