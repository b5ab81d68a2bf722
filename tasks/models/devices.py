"""Choice of device, propagation backend and dtype."""

from __future__ import annotations

from typing import Literal

import torch

from tasks.errors import TaskInputError

__all__ = ["Backend", "choose_backend", "choose_device", "choose_dtype"]

Backend = Literal["numba", "torch"]


def choose_device(choice: str = "auto", *, setting: str = "WAVE_DEVICE") -> str:
    """Return the torch device for a choice; "auto" is CUDA where available, else the CPU.

    Args:
        choice: auto, cpu, or cuda.
        setting: environment variable of the choice, for the error message.

    Raises:
        TaskInputError: if CUDA is requested and not available.
    """
    available = torch.cuda.is_available()
    if choice.startswith("cuda") and not available:
        raise TaskInputError(
            f"The device 'cuda' was requested, but torch finds no CUDA device here; use {setting}=cpu."
        )
    if choice == "auto":
        return "cuda" if available else "cpu"
    return choice


def choose_backend(choice: str = "auto", *, device: str) -> Backend:
    """Return what propagates frames: torch on CUDA, compiled (numba) loops on the CPU.

    Args:
        choice: auto, cpu, or cuda; "auto" is the device of the networks.
        device: torch device of the networks.

    Raises:
        TaskInputError: if CUDA is requested and not available.
    """
    chosen = device if choice == "auto" else choose_device(choice, setting="WAVE_PROPAGATION_DEVICE")
    return "torch" if chosen.startswith("cuda") else "numba"


def choose_dtype(choice: str, *, device: str) -> str:
    """Return the floating point type of the networks; "auto" is half precision on CUDA, single precision elsewhere."""
    if choice == "auto":
        return "float16" if device.startswith("cuda") else "float32"
    return choice
