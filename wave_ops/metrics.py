"""Figures of merit, on images in [0, 1] and flows in pixels.

Convention:
    Images are (batch, channel, height, width) or (frame, channel, height, width) in [0, 1]; each function returns
    one figure per image or per pair of frames, on the device and in the dtype of its input (at least float32).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.warp import backward_warp

__all__ = ["flow_endpoint_error", "mask_precision_recall", "psnr", "ssim", "warp_error"]

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_C1 = 0.01**2
_SSIM_C2 = 0.03**2


def psnr(
    a: Float[Tensor, "batch channel height width"], b: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch"]:
    """Return the peak signal-to-noise ratio in dB for a peak of 1; higher is nearer, infinite where equal.

    Source: ``-10 log10(mean squared error)`` over all channels and pixels of an image. Range [0, inf] for images
    in [0, 1].

    Raises:
        WaveOpsError: the shapes differ.
    """
    _check_alike(a, b)
    return -10 * (_wide(a) - _wide(b)).square().mean(dim=(1, 2, 3)).log10()


def ssim(
    a: Float[Tensor, "batch channel height width"], b: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch"]:
    """Return the structural similarity; 1 where equal.

    Source: Wang, Bovik, Sheikh, Simoncelli (IEEE TIP 2004): Gaussian window 11 x 11, sigma 1.5, K1 = 0.01,
    K2 = 0.03, range 1, population moments; mean over channels and over the windows that lie inside the image.
    Range [-1, 1].

    Raises:
        WaveOpsError: the shapes differ, or a side is under 11 pixels.
    """
    _check_alike(a, b)
    if min(a.shape[2:]) < _SSIM_WINDOW:
        raise WaveOpsError(f"expected images of at least 11 x 11 pixels, got {tuple(a.shape[2:])}")
    a, b = _wide(a), _wide(b)
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    variance_a = _window_mean(a * a) - mean_a * mean_a
    variance_b = _window_mean(b * b) - mean_b * mean_b
    covariance = _window_mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _SSIM_C1) / (mean_a * mean_a + mean_b * mean_b + _SSIM_C1)
    structure = (2 * covariance + _SSIM_C2) / (variance_a + variance_b + _SSIM_C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def warp_error(
    frames: Float[Tensor, "frame channel height width"],
    flows_to_prev: Float[Tensor, "pair 2 height width"],
    valid: Bool[Tensor, "pair height width"],
) -> Float[Tensor, "pair"]:
    """Return, per pair of neighbouring frames, the squared difference to the warped frame before.

    Source: Lai et al., "Learning Blind Video Temporal Consistency" (ECCV 2018), averaged over channels instead of
    summed. Mean over the valid pixels; lower is steadier. Range [0, 1]; not a number where no pixel is valid.

    Args:
        frames: in [0, 1].
        flows_to_prev: entry i lies on frame i + 1's grid and points to frame i, pixels.
        valid: True where entry i of the flow may be trusted, on frame i + 1's grid: not occluded.

    Raises:
        WaveOpsError: there is not one flow and one mask per pair of neighbours.
    """
    pairs = (len(frames) - 1, len(flows_to_prev), len(valid))
    if len(set(pairs)) != 1:
        raise WaveOpsError(f"expected one flow and one mask for each of {pairs[0]} pairs, got {pairs[1:]}")
    difference = backward_warp(_wide(frames[:-1]), flows_to_prev) - frames[1:]
    return _masked_mean(difference.square().mean(dim=1), valid)


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
    _check_alike(flow, truth)
    distance = (_wide(flow) - _wide(truth)).square().sum(dim=1).sqrt()
    known = torch.ones_like(distance, dtype=torch.bool) if valid is None else valid
    return _masked_mean(distance, known)


def mask_precision_recall(predicted: Bool[Tensor, "*mask"], truth: Bool[Tensor, "*mask"]) -> tuple[float, float]:
    """Return the share of the predicted that is true and the share of the true that is predicted, over all axes.

    Source: van Rijsbergen, "Information Retrieval" (1979). Range [0, 1]; 1 where nothing is predicted,
    respectively nothing is true.

    Raises:
        WaveOpsError: the shapes differ.
    """
    _check_alike(predicted, truth)
    hits = int((predicted & truth).sum())
    return hits / int(predicted.sum()) if predicted.any() else 1.0, hits / int(truth.sum()) if truth.any() else 1.0


def _check_alike(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise WaveOpsError(f"expected two arrays of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")


def _wide(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _masked_mean(x: Float[Tensor, "batch height width"], mask: Bool[Tensor, "batch height width"]) -> Tensor:
    """Average where the mask is True, without letting a bad number outside it through."""
    kept = torch.where(mask, x, torch.zeros_like(x))
    return kept.sum(dim=(1, 2)) / mask.sum(dim=(1, 2))


def _window_mean(x: Float[Tensor, "batch channel height width"]) -> Tensor:
    """Average under the Gaussian window, one axis after the other, inside the image only."""
    channel = x.shape[1]
    offset = torch.arange(_SSIM_WINDOW, device=x.device, dtype=x.dtype) - (_SSIM_WINDOW - 1) / 2
    weight = torch.exp(-0.5 * (offset / _SSIM_SIGMA) ** 2)
    weight = (weight / weight.sum()).expand(channel, 1, 1, -1)
    across = F.conv2d(x, weight, groups=channel)
    return F.conv2d(across, weight.transpose(2, 3), groups=channel)
