"""Exponential moving average of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

__all__ = ["average_decay", "update_average"]

_SLOW_START: Final = 10


def average_decay(step: int, *, max_decay: float) -> float:
    """Return the decay at a step (from 0): (1 + step) / (10 + step), at most `max_decay`.

    The low decay of the first steps makes the average forget the random start.
    """
    return min(max_decay, (1 + step) / (_SLOW_START + step))


@torch.no_grad()
def update_average(average: Mapping[str, Tensor], current: Mapping[str, Tensor], *, decay: float) -> None:
    """Set each tensor of `average`, in place, to decay * average + (1 - decay) * current, tensors paired by name."""
    names = list(average)
    torch._foreach_lerp_([average[name] for name in names], [current[name].detach() for name in names], 1 - decay)
