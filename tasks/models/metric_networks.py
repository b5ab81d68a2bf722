"""Networks for metrics, LPIPS and CLIP, from local files or the hub."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPProcessor
from transformers.utils.logging import disable_progress_bar

from tasks.errors import TaskInputError
from tasks.models.hub import fetch_snapshot
from wave_ops.errors import WaveOpsError
from wave_ops.metrics import Lpips

__all__ = ["load_clip_model", "load_lpips"]

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_CLIP_FILES = ["*.json", "*.txt", "model*.safetensors"]
# One file of each group is enough; without any, transformers falls back to a default without an error
_PREPARATION = {
    "tokenizer.json or vocab.json": ("tokenizer.json", "vocab.json"),
    "preprocessor_config.json": ("preprocessor_config.json", "processor_config.json"),
}


def load_lpips(path: str | Path, *, device: str = "cpu") -> Lpips:
    """Load LPIPS (AlexNet) from a safetensors file.

    Args:
        path: AlexNet's convolutions and the weights per channel, named as `Lpips.from_state_dict` documents.
        device: torch device of the network.

    Raises:
        TaskInputError: if the file does not exist, or contains something else.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise TaskInputError(f"There are no LPIPS weights at {file}: name a safetensors file, or leave LPIPS out.")
    if file.suffix != ".safetensors":
        raise TaskInputError(f"The LPIPS weights {file} are not a safetensors file; wave loads nothing else.")
    try:
        return Lpips.from_state_dict(load_file(file)).to(device)
    except SafetensorError:
        raise TaskInputError(f"The LPIPS weights {file} cannot be read: the file is damaged.") from None
    except WaveOpsError as error:
        raise TaskInputError(f"{file} does not contain LPIPS weights: {error}.") from None


def load_clip_model(spec: str, *, device: str = "cpu") -> tuple[Any, Any]:
    """Load a CLIP in float32 with its processor; a process keeps the one that it loaded last.

    Args:
        spec: a folder in the transformers layout, or a hub id.
        device: torch device of the network.

    Returns:
        A `CLIPModel` and its `CLIPProcessor`.

    Raises:
        TaskInputError: if the model does not exist, is not a CLIP, or lacks files or weights.
    """
    folder = _clip_folder(spec)
    _check_layout(folder, spec)
    return _load(folder, spec, device)


def _clip_folder(spec: str) -> Path:
    local = Path(spec).expanduser()
    if local.is_dir():
        return local.resolve()
    if _HUB_ID.fullmatch(spec) and not local.exists():
        return fetch_snapshot(spec, patterns=_CLIP_FILES)
    raise TaskInputError(f"There is no CLIP at {spec!r}: expected a folder in the transformers layout, or a hub id.")


def _check_layout(folder: Path, spec: str) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TaskInputError(f"{spec!r} is not a CLIP in the transformers layout: it has no config.json.") from None
    except (OSError, ValueError) as error:
        raise TaskInputError(f"The CLIP {spec!r} has an unreadable config.json: {error}.") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "clip":
        raise TaskInputError(f"{spec!r} is not a CLIP of images and texts: its config says {kind!r} instead of 'clip'.")
    if not any(folder.glob("model*.safetensors")):
        raise TaskInputError(f"The CLIP {spec!r} has no model.safetensors; wave loads no other weights.")
    for name, files in _PREPARATION.items():
        if not any((folder / file).is_file() for file in files):
            raise TaskInputError(f"The CLIP {spec!r} is incomplete: it has no {name}.")


@lru_cache(maxsize=1)
def _load(folder: Path, spec: str, device: str) -> tuple[Any, Any]:
    disable_progress_bar()  # the caller shows its own progress
    variant = None if any(".fp16" not in file.name for file in folder.glob("model*.safetensors")) else "fp16"
    try:
        model, report = CLIPModel.from_pretrained(
            folder, variant=variant, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TaskInputError(f"The CLIP {spec!r} cannot be loaded: {_first_line(error)}") from None
    if missing := sorted(report["missing_keys"]):  # transformers would leave them random
        raise TaskInputError(f"The CLIP {spec!r} is incomplete: its weights lack {missing[0]}.")
    return model.float().to(device).eval().requires_grad_(False), processor


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
