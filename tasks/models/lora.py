"""LoRA files: their check before a run, and their use during one, through diffusers and peft."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.digest import digest_file_once, digest_of
from tasks.errors import TaskInputError
from tasks.models.checkpoints import LoraIdentity, ModelIdentity
from tasks.models.single_file import require_safetensors
from tasks.models.weights_check import read_shapes

if TYPE_CHECKING:
    from wave_ops.diffusion import StableDiffusion

__all__ = ["parse_lora", "resolve_loras", "with_loras"]

_DOWN = (".lora_down.weight", ".lora_A.weight", ".lora.down.weight", "_lora.down.weight")
"""Ends of the names of a layer's first matrix: kohya's, peft's, and diffusers' own of earlier versions."""


def parse_lora(spec: str) -> tuple[str, float]:
    """Read FILE[:WEIGHT] into a path and a weight, 1 by default.

    Raises:
        TaskInputError: if the weight is not a finite number.
    """
    path, colon, text = spec.rpartition(":")
    if not colon:
        return spec, 1.0
    try:
        weight = float(text)
    except ValueError:
        raise TaskInputError(
            f"The LoRA {spec!r} is not of the form FILE[:WEIGHT], for example style.safetensors:0.8."
        ) from None
    if not math.isfinite(weight):
        raise TaskInputError(f"The weight of the LoRA {spec!r} is not finite.")
    return path, weight


def resolve_loras(model: ModelIdentity, specs: Sequence[str]) -> ModelIdentity:
    """Return a model with LoRAs, which are part of its identity; nothing is loaded.

    Args:
        model: from `resolve_model`, without LoRAs.
        specs: FILE[:WEIGHT] each; those of weight 0 are left out.

    Raises:
        TaskInputError: if a file does not exist, is not safetensors, or contains no LoRA.
    """
    loras = tuple(lora for lora in map(_resolve, specs) if lora.weight)
    if not loras:
        return model
    digest = digest_of(model.digest, [(lora.digest, lora.weight) for lora in loras])
    return replace(model, base=model, loras=loras, digest=digest)


def _resolve(spec: str) -> LoraIdentity:
    path, weight = parse_lora(spec)
    file = Path(path).expanduser()
    if not file.is_file():
        raise TaskInputError(f"The LoRA {path} does not exist: name a .safetensors file.")
    require_safetensors(file, kind="LoRA")
    if not _layers(list(read_shapes(file))):
        raise TaskInputError(f"The file {path} contains no LoRA in the layout of kohya or diffusers.")
    file = file.resolve()
    return LoraIdentity(location=str(file), weight=weight, digest=digest_file_once(file))


def _layers(names: Sequence[str]) -> int:
    return sum(name.endswith(_DOWN) for name in names)


@contextmanager
def with_loras(model: StableDiffusion, loras: Sequence[LoraIdentity]) -> Iterator[None]:
    """Add LoRAs to a loaded model in this context, as layers apart from its weights, which are never written.

    Args:
        model: its UNet and text encoders are used.
        loras: in any order; what they add is summed.

    Raises:
        TaskInputError: if a file does not fit the model, or has values that are not finite.
    """
    pipeline = _pipeline(model)
    names = [f"lora_{number}" for number, _ in enumerate(loras)]
    try:
        for name, lora in zip(names, loras, strict=True):
            _add(pipeline, name, lora)
        pipeline.set_adapters(names, [lora.weight for lora in loras])
        yield
    finally:
        pipeline.unload_lora_weights()


def _pipeline(model: StableDiffusion) -> Any:
    """Return the pipeline of diffusers that adds and removes LoRAs of a model's kind."""
    from diffusers import (  # noqa: PLC0415  (plans need none of them)
        DDIMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
    )

    parts = {name: getattr(model, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    parts["scheduler"] = DDIMScheduler(steps_offset=1, clip_sample=False)
    if model.text_encoder_2 is not None:
        return StableDiffusionXLPipeline(
            **parts, text_encoder_2=model.text_encoder_2, tokenizer_2=model.tokenizer_2, add_watermarker=False
        )
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def _add(pipeline: Any, name: str, lora: LoraIdentity) -> None:
    from safetensors.torch import load_file  # noqa: PLC0415

    weights = load_file(lora.location)
    if bad := next((key for key, value in weights.items() if not value.to(pipeline.unet.dtype).isfinite().all()), ""):
        raise TaskInputError(f"The LoRA {lora.location} contains NaN or infinity, in {bad}.")
    wanted = _layers(list(weights))
    try:
        with _quiet():
            pipeline.load_lora_weights(weights, adapter_name=name)
    except (ValueError, RuntimeError, KeyError, AttributeError, IndexError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TaskInputError(f"The LoRA {lora.location} does not fit the model: {reason}") from None
    encoders = (pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None))
    networks = [pipeline.unet, *(encoder for encoder in encoders if encoder is not None)]
    found = sum(name in getattr(module, "lora_A", ()) for network in networks for module in network.modules())
    if found != wanted:
        raise TaskInputError(
            f"The LoRA {lora.location} does not fit the model, which has {found} of its {wanted} layers: it was "
            "trained for another one."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back warnings of several adapters, which are meant, and a report on those that the new file lacks."""
    from transformers.utils import logging  # noqa: PLC0415

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            yield
    finally:
        logging.set_verbosity(verbosity)
