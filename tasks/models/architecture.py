"""Which networks a checkpoint in the diffusers layout consists of, and whether they are ones that wave edits with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.errors import TaskInputError
from tasks.models.single_file import tokenizer_folder

__all__ = ["WEIGHTS", "check_added_conditions", "check_layout", "is_xl", "networks_of", "zeroes_empty_prompt"]

WEIGHTS = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
}
"""Stem of the weights' file name of each network, by its folder."""
_SIZES = 6  # original height and width, crop, target height and width


def is_xl(index: Mapping[str, Any]) -> bool:
    """Return whether a model_index.json is that of Stable Diffusion XL, which has a second text encoder."""
    return "text_encoder_2" in index


def networks_of(index: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the folders of a checkpoint's networks."""
    return tuple(name for name in WEIGHTS if name != "text_encoder_2" or is_xl(index))


def zeroes_empty_prompt(index: Mapping[str, Any]) -> bool:
    """Return whether an empty prompt is encoded as zeros: only in SDXL, and there where the index does not deny it."""
    return is_xl(index) and bool(index.get("force_zeros_for_empty_prompt", True))


def check_layout(folder: Path, index: Mapping[str, Any], spec: str) -> None:
    """Check that a folder contains the parts of Stable Diffusion 1.x, 2.x or XL.

    Args:
        folder: of the checkpoint.
        index: its model_index.json.
        spec: its name, as the user wrote it.

    Raises:
        TaskInputError: if the checkpoint is of another architecture, or lacks a file.
    """
    if index.get("requires_aesthetics_score") or index.get("text_encoder") == [None, None]:
        raise TaskInputError(
            f"The model {spec!r} is the refiner of Stable Diffusion XL: wave edits with the base model."
        )
    if "transformer" in index or "text_encoder_3" in index:
        raise TaskInputError(
            f"The model {spec!r} is a {index.get('_class_name')}; wave edits with Stable Diffusion 1.x, 2.x and XL."
        )
    suffixes = ("", "_2") if is_xl(index) else ("",)
    files = ["scheduler/scheduler_config.json", *(f"text_encoder{suffix}/config.json" for suffix in suffixes)]
    missing = [file for file in files if not (folder / file).is_file()]
    tokenizers = [f"tokenizer{suffix}" for suffix in suffixes]
    missing += [f"{name}/vocab.json" for name in tokenizers if not _has_vocabulary(folder / name)]
    if missing:
        raise TaskInputError(f"The model {spec!r} is not in the diffusers layout: it has no {missing[0]}.")


def _has_vocabulary(tokenizer: Path) -> bool:
    return (tokenizer_folder(tokenizer) / "vocab.json").is_file()


def check_added_conditions(unet: Mapping[str, Any], second_encoder: Mapping[str, Any] | None, *, model: str) -> None:
    """Check what a UNet embeds with the timestep: nothing, or six sizes and the second text encoder's embedding (SDXL).

    Args:
        unet: its config.
        second_encoder: config of the second text encoder, or None.
        model: name of the checkpoint.

    Raises:
        TaskInputError: if the UNet takes other conditions.
    """
    kind, wanted = unet.get("addition_embed_type"), "text_time" if second_encoder else None
    if kind != wanted or unet.get("class_embed_type"):
        raise TaskInputError(
            f"The UNet of {model!r} takes the added conditions {kind or unet.get('class_embed_type')}, and wave "
            f"computes {wanted or 'none'} for it."
        )
    width, sizes = unet.get("projection_class_embeddings_input_dim"), unet.get("addition_time_embed_dim")
    pooled = (second_encoder or {}).get("projection_dim")
    if not (isinstance(width, int) and isinstance(sizes, int) and isinstance(pooled, int)):
        return
    if width != _SIZES * sizes + pooled:
        raise TaskInputError(
            f"The UNet of {model!r} takes added conditions of {width} channels, and wave computes {_SIZES} sizes of "
            f"{sizes} and an embedding of {pooled}: it was trained with others, as the refiner is."
        )
