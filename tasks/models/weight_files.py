"""Files of a network's weights in its folder: safetensors, one or several with an index, full or fp16."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.errors import TaskInputError

__all__ = ["choose_variant", "weight_files"]


def choose_variant(folder: Path, stem: str, *, half: bool) -> str | None:
    """Choose between full and fp16 weights; safetensors only, since loading a pickle can run any code.

    Args:
        folder: of the network.
        stem: of the weights' file name, such as diffusion_pytorch_model.
        half: prefer the fp16 variant.

    Returns:
        "fp16", or None for full weights.

    Raises:
        TaskInputError: if there are no weights, or pickled ones only.
    """
    full, fp16 = (any((folder / name).is_file() for name in _names(stem, variant)) for variant in (None, "fp16"))
    if fp16 and (half or not full):
        return "fp16"
    if full:
        return None
    pickles = sorted(path.name for kind in ("*.bin", "*.ckpt", "*.pt", "*.pth") for path in folder.glob(kind))
    if pickles:
        raise TaskInputError(f"{folder} contains only pickled weights ({pickles[0]}); wave loads safetensors only.")
    raise TaskInputError(f"{folder} contains no weights: expected {stem}.safetensors or {stem}.fp16.safetensors.")


def weight_files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    """Return the file of a network's weights or, where they are in several, their index and then all of them.

    Raises:
        TaskInputError: if the index cannot be read, or names a file that is not there.
    """
    single, index = (folder / name for name in _names(stem, variant))
    if single.is_file():
        return [single]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        parts = [folder / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise TaskInputError(f"The index of weights {index} cannot be read: fetch it again.") from None
    for part in parts:
        if part.parent != folder or part.suffix != ".safetensors" or not part.is_file():
            raise TaskInputError(f"The weights in {folder} are incomplete: {index.name} names {part.name}.")
    return [index, *parts]


def _names(stem: str, variant: str | None) -> tuple[str, str]:
    infix = f".{variant}" if variant else ""
    return f"{stem}{infix}.safetensors", f"{stem}.safetensors.index{infix}.json"
