from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.metrics import psnr, ssim


def images(count: int, *, seed: int, size: tuple[int, int] = (15, 18)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def noisy(images: Tensor, *, seed: int = 1, strength: float = 0.2) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + strength * noise).clamp(0, 1)


def plain_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Compute SSIM by its definition: weighted moments under a Gaussian of 11 x 11, sigma 1.5, inside the image."""
    offset = torch.arange(11, dtype=torch.float64) - 5
    weight = torch.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    kernel = (weight / weight.sum()).expand(a.shape[1], 1, 11, 11)

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel, groups=x.shape[1])

    a, b = a.double(), b.double()
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, cov = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    near = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return near.mean(dim=(1, 2, 3))


@pytest.mark.parametrize("strength", [0.02, 0.2, 1.0])
def test_ssim_equals_the_definition(strength: float) -> None:
    a = images(3, seed=0, size=(15, 23)).sqrt()
    b = noisy(a, strength=strength)
    np.testing.assert_allclose(ssim(a, b).numpy(), plain_ssim(a, b).numpy(), atol=1e-6)


def test_ssim_of_equal_images_is_one_and_of_opposite_ones_negative() -> None:
    a = images(1, seed=0)
    assert ssim(a, a).item() == pytest.approx(1, abs=1e-6)
    assert ssim(a, 1 - a).item() < 0


def test_ssim_of_almost_flat_images_is_exact() -> None:
    a = 0.9 + 1e-3 * images(1, seed=0)
    b = 0.9 + 1e-3 * images(1, seed=1)
    np.testing.assert_allclose(ssim(a, b).numpy(), plain_ssim(a, b).numpy(), atol=1e-7)


def test_ssim_needs_an_image_of_at_least_one_window() -> None:
    assert ssim(images(1, seed=0, size=(11, 11)), images(1, seed=1, size=(11, 11))).shape == (1,)
    with pytest.raises(WaveOpsError, match="11 x 11"):
        ssim(images(1, seed=0, size=(10, 30)), images(1, seed=1, size=(10, 30)))


@pytest.mark.parametrize("strength", [0.01, 0.1, 1.0])
def test_psnr_equals_that_of_scikit_image(strength: float) -> None:
    a = images(3, seed=0).double()
    b = noisy(a, strength=strength)
    expected = [peak_signal_noise_ratio(p, q, data_range=1) for p, q in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(psnr(a, b).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(("difference", "decibels"), [(0.1, 20), (0.01, 40), (1, 0)])
def test_psnr_of_a_constant_difference(difference: float, decibels: float) -> None:
    a = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    np.testing.assert_allclose(psnr(a, a + difference).numpy(), [decibels, decibels], atol=1e-6)


def test_psnr_is_one_value_per_image_and_infinite_for_equal_ones() -> None:
    a = torch.zeros(2, 3, 4, 5)
    b = a.clone()
    b[1] = 0.5
    assert psnr(a, b).tolist() == pytest.approx([math.inf, 20 * math.log10(2)])


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_metrics_of_half_precision_images_are_float32(metric, dtype) -> None:
    assert metric(images(1, seed=0).to(dtype), images(1, seed=1).to(dtype)).dtype == torch.float32


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_metrics_of_double_precision_images_are_float64(metric) -> None:
    assert metric(images(1, seed=0).double(), images(1, seed=1).double()).dtype == torch.float64


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("metric", [psnr, ssim])
def test_images_of_different_shapes_are_refused(metric) -> None:
    with pytest.raises(WaveOpsError, match="one shape"):
        metric(torch.zeros(1, 3, 12, 12), torch.zeros(1, 3, 12, 13))
