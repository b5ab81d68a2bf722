"""Similarity of images: PSNR and SSIM.

Convention:
    Images are (batch, channel, height, width) or (frame, channel, height, width) in [0, 1]; each function returns
    one value per image, on the device and in the dtype of its input (at least float32).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.metrics._arrays import check_same_shape, wide

__all__ = ["psnr", "ssim"]

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5  # scikit-image cuts the Gaussian at 3.5 sigma: 11 pixels


def psnr(
    a: Float[Tensor, "batch channel height width"], b: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch"]:
    """Return the peak signal-to-noise ratio in dB for a peak of 1; higher is nearer, infinite where equal.

    ``-10 log10(mean squared error)`` over all channels and pixels of an image. Range [0, inf] for images in [0, 1].

    Raises:
        WaveOpsError: the shapes differ.
    """
    check_same_shape(a, b)
    return -10 * (wide(a) - wide(b)).square().mean(dim=(1, 2, 3)).log10()


def ssim(
    a: Float[Tensor, "batch channel height width"], b: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch"]:
    """Return the structural similarity, by scikit-image; not differentiable.

    Source: Wang, Bovik, Sheikh, Simoncelli (IEEE TIP 2004): Gaussian window 11 x 11, sigma 1.5, K1 = 0.01,
    K2 = 0.03, population moments, data range 1. Mean over channels and over the windows inside the image. Computed in
    float64: a variance is the small difference of two moments.

    Range [-1, 1]: 1 where equal, near 0 where the structures have nothing in common, under 0 where one is the
    negative of the other.

    Raises:
        WaveOpsError: the shapes differ, or a side is under 11 pixels.
    """
    check_same_shape(a, b)
    if min(a.shape[2:]) < _SSIM_WINDOW:
        raise WaveOpsError(f"expected images of at least 11 x 11 pixels, got {tuple(a.shape[2:])}")
    values = [_similarity(*pair) for pair in zip(_to_numpy(a), _to_numpy(b), strict=True)]
    return torch.tensor(values, dtype=wide(a[:0]).dtype, device=a.device)


def _similarity(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            a,
            b,
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=_SSIM_SIGMA,
            use_sample_covariance=False,
        )
    )


def _to_numpy(images: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = images.detach().double().cpu().numpy()
    return array
