"""Synthesise one frame by either search, from images as arrays (height, width, 3)."""

from __future__ import annotations

from collections.abc import Sequence

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
    torch_synthesis,
)
from wave_ops.propagation.guides import pixel_grid

__all__ = ["SETTINGS", "make_case", "paint", "to_array", "to_tensor"]

SETTINGS = PropagationSettings()

Case = tuple[torch.Tensor, Guides, Guides, torch.Tensor]


def make_case(frame: np.ndarray, style: np.ndarray, target: np.ndarray) -> Case:
    """Return style, its guides, target guides and start for a target with zero flow."""
    source, edited = to_tensor(frame), to_tensor(style)
    positions = pixel_grid((frame.shape[0], frame.shape[1]))
    return edited, source_guides(source, edited), target_guides(to_tensor(target), edited, positions), positions


def paint(
    style: torch.Tensor,
    source: Sequence[torch.Tensor],
    target: Sequence[torch.Tensor],
    *starts: torch.Tensor,
    settings: PropagationSettings = SETTINGS,
    device: str | None = None,
) -> Synthesis:
    """Synthesise by the compiled search, or by the torch search on a device; the result is on the CPU."""
    if device is None:
        return synthesise(Exemplar.build(style, Guides(*source), settings=settings), Guides(*target), starts=starts)
    style, *moved = (value.to(device) for value in (style, *source, *target, *starts))
    exemplars = torch_synthesis.Exemplars.build(style, Guides(*moved[:4]), settings=settings)
    found = torch_synthesis.synthesise(exemplars, Guides(*moved[4:8]), starts=moved[8:])
    return Synthesis(found.image.cpu(), found.error.cpu(), found.matches.cpu(), found.seen.cpu())


def to_tensor(image: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """Return an image (height, width, channel) as float32 (1, channel, height, width)."""
    return torch.from_numpy(image.astype(np.float32)).to(device).movedim(-1, 0)[None].contiguous()


def to_array(image: torch.Tensor) -> np.ndarray:
    """Return an image (1, channel, height, width) as (height, width, channel)."""
    return image[0].movedim(0, -1).cpu().numpy()
