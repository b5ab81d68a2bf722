"""Checkpoints in one safetensors file, in the layout of their authors: which configs they need, and whether they fit.

Source: the names of tensors of CompVis' and Stability AI's training code, which diffusers' `from_single_file` reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import safe_open

from tasks.errors import TaskInputError
from tasks.models.weights_check import expected_of_vae, read_shapes

__all__ = ["CONFIGS", "check_single_file", "config_folder", "require_safetensors", "tokenizer_folder"]

CONFIGS = Path(__file__).parent / "configs"
"""Configs of Stable Diffusion's versions, in the diffusers layout without weights."""
TOKENIZER = CONFIGS / "tokenizer"
"""The tokenizer of all of them; their configs differ in what they pad with."""
_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_CLIP = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
_OPEN_CLIP = "cond_stage_model.model.token_embedding.weight"
_CROSS = f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_XL_CLIP = "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"
_XL_OPEN_CLIP = "conditioner.embedders.1.model.token_embedding.weight"
_XL_CROSS = f"{_UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
_REFINER = "conditioner.embedders.0.model."
Shapes: TypeAlias = Mapping[str, list[int]]


def require_safetensors(file: Path, *, kind: str) -> None:
    """Check a file's name.

    Raises:
        TaskInputError: if it is not a safetensors file.
    """
    if file.suffix != ".safetensors":
        raise TaskInputError(
            f"The {kind} {str(file)!r} is a file that wave does not load: expected a .safetensors file, or a folder "
            "in the diffusers layout."
        )


def config_folder(file: Path) -> Path:
    """Return the configs of a checkpoint in one file: a folder of its name next to it, else those of its version.

    Stable Diffusion 2.x in v-prediction and in epsilon-prediction (base) have the same tensors: the file's metadata
    (modelspec) decide, and v-prediction where they do not say. Stable Diffusion XL predicts noise, unless the file
    says otherwise.

    Raises:
        TaskInputError: if the file is damaged, or is no checkpoint of a known version; of SDXL, if it is the refiner or
            one in v-prediction.
    """
    own = file.with_suffix("")
    if (own / "model_index.json").is_file():
        return own
    shapes = read_shapes(file)
    if any(name.startswith(_REFINER) for name in shapes):
        raise TaskInputError(f"{file} is the refiner of Stable Diffusion XL: wave edits with the base model.")
    if _CROSS not in shapes and _XL_CROSS not in shapes:
        raise TaskInputError(
            f"{file} is not a checkpoint of Stable Diffusion 1.x, 2.x or XL in one file: it has no {_CROSS}."
        )
    if _CROSS not in shapes and shapes[_XL_CROSS][-1] == 2048 and {_XL_CLIP, _XL_OPEN_CLIP} <= shapes.keys():
        _require_epsilon(file, shapes, own)
        return CONFIGS / "sdxl"
    if _CROSS not in shapes:
        raise _no_text_encoder(file, shapes[_XL_CROSS][-1], own)
    width = shapes[_CROSS][-1]
    if width == 768 and _CLIP in shapes:
        return CONFIGS / "sd1"
    if width == 1024 and _OPEN_CLIP in shapes:
        return CONFIGS / ("sd2_base" if _predicts_epsilon(file) else "sd2")
    raise _no_text_encoder(file, width, own)


def _no_text_encoder(file: Path, width: int, own: Path) -> TaskInputError:
    return TaskInputError(
        f"{file} has a UNet that attends to text of {width} channels and no text encoder that wave knows for it: put "
        f"the configs of its networks into the folder {own}, in the diffusers layout."
    )


def _require_epsilon(file: Path, shapes: Shapes, own: Path) -> None:
    """Check that a checkpoint of SDXL predicts noise; those in v-prediction have a tensor or metadata that say so."""
    if "v_pred" in shapes or _metadata(file).get("modelspec.prediction_type", "epsilon") != "epsilon":
        raise TaskInputError(
            f"{file} is Stable Diffusion XL in v-prediction, for which there are no common configs: put its own into "
            f"the folder {own}, in the diffusers layout."
        )


def _metadata(file: Path) -> Mapping[str, str]:
    with safe_open(str(file), framework="numpy") as opened:
        return opened.metadata() or {}


def _predicts_epsilon(file: Path) -> bool:
    metadata = _metadata(file)
    return metadata.get("modelspec.prediction_type") == "epsilon" or metadata.get(
        "modelspec.architecture", ""
    ).startswith("stable-diffusion-v2-512")


def check_single_file(file: Path, configs: Mapping[str, Mapping[str, Any]], *, own_vae: bool) -> None:
    """Check that the main tensors of a checkpoint in one file have the shapes that the configs imply.

    Args:
        file: the checkpoint; only its header is read.
        configs: of unet, vae, text_encoder and, for SDXL, text_encoder_2.
        own_vae: whether its VAE is used.

    Raises:
        TaskInputError: if the file is damaged, or a tensor is missing or has another shape.
    """
    shapes = read_shapes(file)
    for name, wanted in _expected(configs, shapes, own_vae=own_vae):
        found = shapes.get(name)
        if found is None:
            hint = ": name another one with --vae" if name.startswith(_VAE) else ""
            raise TaskInputError(f"The checkpoint {file} is incomplete, it has no {name}{hint}.")
        if len(found) < len(wanted) or any(w not in (None, f) for w, f in zip(wanted, found, strict=False)):
            shown = "x".join("any" if side is None else str(side) for side in wanted)
            raise TaskInputError(
                f"The checkpoint {file} does not fit its configs: {name} is {'x'.join(map(str, found))}, and they say "
                f"{shown}."
            )


def _expected(
    configs: Mapping[str, Mapping[str, Any]], shapes: Shapes, *, own_vae: bool
) -> Iterator[tuple[str, tuple[int | None, ...]]]:
    unet, text = configs["unet"], configs["text_encoder"]
    widths = unet["block_out_channels"]
    yield f"{_UNET}input_blocks.0.0.weight", (widths[0], unet.get("in_channels"))
    yield f"{_UNET}middle_block.0.in_layers.2.weight", (widths[-1], widths[-1])
    yield f"{_UNET}out.2.weight", (unet.get("out_channels"), widths[0])
    if second := configs.get("text_encoder_2"):
        yield _XL_CROSS, (None, unet.get("cross_attention_dim"))
        yield f"{_UNET}label_emb.0.0.weight", (None, unet.get("projection_class_embeddings_input_dim"))
        yield _XL_CLIP, (text.get("vocab_size"), text.get("hidden_size"))
        yield _XL_OPEN_CLIP, (second.get("vocab_size"), second.get("hidden_size"))
    else:
        yield _CROSS, (None, unet.get("cross_attention_dim"))
        yield _OPEN_CLIP if _OPEN_CLIP in shapes else _CLIP, (text.get("vocab_size"), text.get("hidden_size"))
    if own_vae:
        yield from ((_VAE + name, shape) for name, shape in expected_of_vae(configs["vae"]))


def tokenizer_folder(folder: Path) -> Path:
    """Return the folder with a tokenizer's vocabulary: its own, else, for configs of this package, their common one."""
    return folder if (folder / "vocab.json").is_file() or CONFIGS not in folder.parents else TOKENIZER
