"""Exponential moving averages of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

__all__ = ["average_into", "averaging_decay"]

_SLOW_START: Final = 10


def averaging_decay(step: int, *, longest: float) -> float:
    """The decay at a step: short memory at first, so that the random start is forgotten, `longest` later."""
    return min(longest, (1 + step) / (_SLOW_START + step))


@torch.no_grad()
def average_into(average: Mapping[str, Tensor], current: Mapping[str, Tensor], *, decay: float) -> None:
    """Average = decay * average + (1 - decay) * current, in place, for every name."""
    names = list(average)
    torch._foreach_lerp_([average[name] for name in names], [current[name].detach() for name in names], 1 - decay)
