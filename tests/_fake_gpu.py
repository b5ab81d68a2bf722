"""Preload of a Dask worker that seems to have a CUDA device: it notes what it is to compute there, and uses the CPU.

Tasks arrive with the names that they refer to, looked up in their own modules: it is there that functions are replaced.
The propagation is called by a function of its stage's module, which is imported afterwards, from the package.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from prefect.context import TaskRunContext

from tasks.models import loading
from wave_ops import propagation

__all__ = ["dask_setup"]


def dask_setup(_worker: Any) -> None:
    """Replace what would use the device; Dask calls this when the worker starts."""
    loaded_model, propagate_interval = loading.loaded_model, propagation.propagate_interval

    def load_on_cpu(*parts: Any, device: str, dtype: str) -> Any:
        _note(device, dtype)
        return loaded_model(*parts, device="cpu", dtype="float32")

    def propagate_on_cpu(*frames: Any, device: str | None, **options: Any) -> Any:
        _note(str(device))
        return propagate_interval(*frames, device=None, **options)

    torch.cuda.is_available = lambda: True
    loading.loaded_model = load_on_cpu
    propagation.propagate_interval = propagate_on_cpu


def _note(*words: str) -> None:
    context = TaskRunContext.get()
    assert context is not None
    with Path(os.environ["FAKE_GPU_LOG"]).open("a") as file:
        file.write(" ".join((context.task.name, *words)) + "\n")
