"""Errors of flows and masks, against the true ones."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wave_ops.metrics._arrays import check_same_shape, masked_mean, wide

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
        flow: the estimate, in pixels.
        truth: the true flow, in pixels.
        valid: True where the truth is known; everywhere by default.

    Raises:
        WaveOpsError: the shapes differ.
    """
    check_same_shape(flow, truth)
    distance = (wide(flow) - wide(truth)).square().sum(dim=1).sqrt()
    known = torch.ones_like(distance, dtype=torch.bool) if valid is None else valid
    return masked_mean(distance, known)


def mask_precision_recall(predicted: Bool[Tensor, "*mask"], truth: Bool[Tensor, "*mask"]) -> tuple[float, float]:
    """Return precision and recall: how much of the predicted mask is true, and how much of the true mask is predicted.

    Source: van Rijsbergen, "Information Retrieval" (1979). Fractions over all axes, in [0, 1]; precision is 1 if
    nothing is predicted, recall is 1 if nothing is true.

    Raises:
        WaveOpsError: the shapes differ.
    """
    check_same_shape(predicted, truth)
    hits = int((predicted & truth).sum())
    return hits / int(predicted.sum()) if predicted.any() else 1.0, hits / int(truth.sum()) if truth.any() else 1.0
