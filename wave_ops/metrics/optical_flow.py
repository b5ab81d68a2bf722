"""How right a flow or a mask is, against the true one."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wave_ops.metrics._arrays import check_alike, masked_mean, wide

__all__ = ["flow_endpoint_error", "mask_precision_recall"]


def flow_endpoint_error(
    flow: Float[Tensor, "batch 2 height width"],
    truth: Float[Tensor, "batch 2 height width"],
    *,
    valid: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, "batch"]:
    """Return the mean Euclidean distance between two flows, in pixels.

    Source: Otte and Nagel (ECCV 1994); the EPE of Middlebury, Sintel and KITTI. Range [0, inf); lower is better;
    not a number where no pixel is valid.

    Args:
        flow: the estimate.
        truth: the true flow.
        valid: where the truth is known; everywhere by default.

    Raises:
        WaveOpsError: the shapes differ.
    """
    check_alike(flow, truth)
    distance = (wide(flow) - wide(truth)).square().sum(dim=1).sqrt()
    known = torch.ones_like(distance, dtype=torch.bool) if valid is None else valid
    return masked_mean(distance, known)


def mask_precision_recall(predicted: Bool[Tensor, "*mask"], truth: Bool[Tensor, "*mask"]) -> tuple[float, float]:
    """Return the share of the predicted that is true and the share of the true that is predicted, over all axes.

    Source: van Rijsbergen, "Information Retrieval" (1979). Range [0, 1]; 1 where nothing is predicted,
    respectively nothing is true.

    Raises:
        WaveOpsError: the shapes differ.
    """
    check_alike(predicted, truth)
    hits = int((predicted & truth).sum())
    return hits / int(predicted.sum()) if predicted.any() else 1.0, hits / int(truth.sum()) if truth.any() else 1.0
