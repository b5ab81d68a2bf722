"""Choice of device, propagation backend and dtype.

A plan keeps the choice of a device, which is resolved in the process that runs the stage. The dtype and the backend
change results: they are decided once, when a run is planned, for the machines that will compute.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path
from typing import Literal

from tasks.errors import TaskInputError

__all__ = ["Backend", "choose_backend", "choose_device", "choose_dtype", "cuda_available", "stage_device"]

Backend = Literal["numba", "torch"]


def cuda_available() -> bool:
    """Return whether torch finds a CUDA device in this process; torch is not imported where there is no driver."""
    if "torch" not in sys.modules and not _has_driver():
        return False
    import torch  # noqa: PLC0415  (takes seconds, and a plan needs nothing else of it)

    return torch.cuda.is_available()


def _has_driver() -> bool:
    """Return whether a driver of NVIDIA or AMD is installed; True where that is not known."""
    if not sys.platform.startswith("linux"):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def choose_device(choice: str = "auto", *, setting: str = "WAVE_DEVICE", available: bool | None = None) -> str:
    """Return the torch device for a choice; "auto" is CUDA where available, else the CPU.

    Args:
        choice: auto, cpu, or cuda.
        setting: environment variable of the choice, for the error message.
        available: whether there is a CUDA device where the stages run; by default whether there is one here.

    Raises:
        TaskInputError: if CUDA is requested and not available.
    """
    available = cuda_available() if available is None else available
    if choice.startswith("cuda") and not available:
        raise TaskInputError(
            f"The device 'cuda' was requested, but torch finds no CUDA device here; use {setting}=cpu."
        )
    if choice == "auto":
        return "cuda" if available else "cpu"
    return choice


def stage_device(choice: str, *, dtype: str) -> str:
    """Return the torch device of a stage's networks, in the process that runs the stage.

    Args:
        choice: auto, cpu, or cuda, from the plan.
        dtype: of the networks, from the plan.

    Raises:
        TaskInputError: if this machine cannot do what was planned for another.
    """
    device = choose_device(choice)
    if choice == "auto" and dtype == "float16" and device == "cpu":
        raise TaskInputError(
            f"The run was planned in float16, for CUDA, and torch finds no CUDA device on {platform.node()}: "
            "start workers with the resource GPU only where there is one, or use WAVE_DTYPE=float32."
        )
    return device


def choose_backend(choice: str = "auto", *, device: str, available: bool | None = None) -> Backend:
    """Return what propagates frames: torch on CUDA, compiled (numba) loops on the CPU.

    Args:
        choice: auto, cpu, or cuda; "auto" is the device of the networks.
        device: torch device of the networks.
        available: see `choose_device`.

    Raises:
        TaskInputError: if CUDA is requested and not available.
    """
    chosen = device if choice == "auto" else _propagation_device(choice, available)
    return "torch" if chosen.startswith("cuda") else "numba"


def _propagation_device(choice: str, available: bool | None) -> str:
    return choose_device(choice, setting="WAVE_PROPAGATION_DEVICE", available=available)


def choose_dtype(choice: str, *, device: str) -> str:
    """Return the floating point type of the networks; "auto" is half precision on CUDA, single precision elsewhere."""
    if choice == "auto":
        return "float16" if device.startswith("cuda") else "float32"
    return choice
