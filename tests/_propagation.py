"""Synthesise one frame, by the compiled loops or on a torch device."""

from __future__ import annotations

import numpy as np
import torch

from wave_ops.propagation import (
    Exemplar,
    Guides,
    PropagationSettings,
    Synthesis,
    source_guides,
    synthesise,
    target_guides,
)
from wave_ops.propagation.guides import own_positions
from wave_ops.propagation.on_device.synthesis import Exemplars
from wave_ops.propagation.on_device.synthesis import synthesise as synthesise_on_device

__all__ = ["SETTINGS", "make_case", "paint", "tensor"]

SETTINGS = PropagationSettings()


def make_case(
    frame: np.ndarray, style: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, Guides, Guides, np.ndarray]:
    """Style, its guides, target guides and start for a target that the flow says has not moved."""
    style = style.astype(np.float32)
    positions = own_positions(*frame.shape[:2])
    return style, source_guides(frame, style), target_guides(target, style, positions), positions


def paint(style, source, target, *starts, settings=SETTINGS, device=None) -> Synthesis:
    """Synthesise by the compiled loops, or on a torch device."""
    if device is None:
        return synthesise(Exemplar.build(style, source, settings=settings), target, starts=starts)
    exemplars = Exemplars.build(tensor(style, device), [tensor(g, device) for g in source], settings=settings)
    fields = [torch.from_numpy(start).to(device)[None] for start in starts]
    result = synthesise_on_device(exemplars, [tensor(g, device) for g in target], starts=fields)
    image, seen = (value[0].movedim(0, -1).cpu().numpy() for value in (result.image, result.seen))
    return Synthesis(image, result.error[0].cpu().numpy(), result.matches[0].cpu().numpy(), seen)


def tensor(image: np.ndarray, device: str) -> torch.Tensor:
    return torch.from_numpy(image).to(device).movedim(-1, 0)[None].contiguous()
