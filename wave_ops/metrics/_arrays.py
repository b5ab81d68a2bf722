"""Helpers of the metrics: checks of shape, precision, and masked means."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wave_ops.errors import WaveOpsError

__all__ = ["check_same_shape", "masked_mean", "wide"]


def check_same_shape(a: Tensor, b: Tensor) -> None:
    """Check that two arrays have one shape.

    Raises:
        WaveOpsError: if they have not.
    """
    if a.shape != b.shape:
        raise WaveOpsError(f"expected two arrays of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")


def wide(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert to float32 any type that is narrower."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def masked_mean(
    x: Float[Tensor, "batch height width"], mask: Bool[Tensor, "batch height width"]
) -> Float[Tensor, "batch"]:
    """Compute the mean where the mask is True; NaN and infinity elsewhere have no effect."""
    kept = torch.where(mask, x, torch.zeros_like(x))
    return kept.sum(dim=(1, 2)) / mask.sum(dim=(1, 2))
