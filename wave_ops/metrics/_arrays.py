"""What the metrics share: arrays alike, wide enough, and averaged under a mask."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wave_ops.errors import WaveOpsError

__all__ = ["check_alike", "masked_mean", "wide"]


def check_alike(a: Tensor, b: Tensor) -> None:
    """Refuse two arrays of different shapes."""
    if a.shape != b.shape:
        raise WaveOpsError(f"expected two arrays of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")


def wide(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Give numbers at least 32 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def masked_mean(
    x: Float[Tensor, "batch height width"], mask: Bool[Tensor, "batch height width"]
) -> Float[Tensor, "batch"]:
    """Average where the mask is True, without letting a bad number outside it through."""
    kept = torch.where(mask, x, torch.zeros_like(x))
    return kept.sum(dim=(1, 2)) / mask.sum(dim=(1, 2))
