"""Where tensors live and how precise they are."""

from __future__ import annotations

from typing import Literal

import torch

from tasks.errors import TaskInputError

__all__ = ["Backend", "choose_backend", "choose_device", "choose_dtype"]

Backend = Literal["numba", "torch"]


def choose_device(choice: str = "auto", *, setting: str = "WAVE_DEVICE") -> str:
    """Settle on a torch device: CUDA where there is one, unless told otherwise by the setting.

    Raises:
        TaskInputError: if CUDA is asked for and not there.
    """
    available = torch.cuda.is_available()
    if choice.startswith("cuda") and not available:
        raise TaskInputError(
            f"The device 'cuda' was asked for, but torch finds no CUDA device here; use {setting}=cpu."
        )
    if choice == "auto":
        return "cuda" if available else "cpu"
    return choice


def choose_backend(choice: str = "auto", *, device: str) -> Backend:
    """Settle on how frames are propagated: by torch on CUDA where the networks run there, else by compiled loops.

    Raises:
        TaskInputError: if CUDA is asked for and not there.
    """
    place = device if choice == "auto" else choose_device(choice, setting="WAVE_PROPAGATION_DEVICE")
    return "torch" if place.startswith("cuda") else "numba"


def choose_dtype(choice: str, *, device: str) -> str:
    """Settle on the floating point type of the networks: half precision on CUDA, single elsewhere."""
    if choice == "auto":
        return "float16" if device.startswith("cuda") else "float32"
    return choice
