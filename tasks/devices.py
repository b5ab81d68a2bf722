"""Where tensors live and how precise they are."""

from __future__ import annotations

from typing import Literal

import torch

from tasks.errors import TaskInputError

__all__ = ["DeviceChoice", "DtypeChoice", "choose_device", "choose_dtype"]

DeviceChoice = Literal["auto", "cpu", "cuda"]
DtypeChoice = Literal["auto", "float32", "float16", "bfloat16"]


def choose_device(choice: str = "auto") -> str:
    """Settle on a torch device: CUDA where there is one, unless told otherwise.

    Raises:
        TaskInputError: if CUDA is asked for and not there.
    """
    available = torch.cuda.is_available()
    if choice.startswith("cuda") and not available:
        raise TaskInputError(
            "The device 'cuda' was asked for, but torch finds no CUDA device here; use WAVE_DEVICE=cpu."
        )
    if choice == "auto":
        return "cuda" if available else "cpu"
    return choice


def choose_dtype(choice: str, *, device: str) -> str:
    """Settle on the floating point type of the networks: half precision on CUDA, single elsewhere."""
    if choice == "auto":
        return "float16" if device.startswith("cuda") else "float32"
    return choice
