"""Preload of a Dask worker that seems to have a CUDA device: it notes what it is to compute there, and uses the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tasks import edit, invert, propagate

__all__ = ["dask_setup"]


def dask_setup(_worker: Any) -> None:
    """Called by Dask when the worker starts."""
    torch.cuda.is_available = lambda: True
    _load_on_cpu(invert)
    _load_on_cpu(edit)
    propagate_interval = propagate.propagate_interval

    def on_cpu(*frames: Any, device: str | None, **options: Any) -> Any:
        _note("propagate", device)
        return propagate_interval(*frames, device=None, **options)

    propagate.propagate_interval = on_cpu  # type: ignore[attr-defined]


def _load_on_cpu(stage: ModuleType) -> None:
    loaded_model = stage.loaded_model

    def on_cpu(*parts: Any, device: str, dtype: str) -> Any:
        _note(stage.__name__.removeprefix("tasks."), device, dtype)
        return loaded_model(*parts, device="cpu", dtype="float32")

    stage.loaded_model = on_cpu  # type: ignore[attr-defined]


def _note(*words: str | None) -> None:
    with Path(os.environ["FAKE_GPU_LOG"]).open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")
