from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.metrics import flow_endpoint_error, mask_precision_recall, psnr, ssim, warp_error


def images(count: int, *, seed: int, size: tuple[int, int] = (15, 18)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def plain_ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """SSIM of one channel, window by window, with weighted moments about the means."""
    offsets = np.arange(11) - 5
    weight = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    values = []
    for row in range(a.shape[0] - 10):
        for column in range(a.shape[1] - 10):
            p, q = a[row : row + 11, column : column + 11], b[row : row + 11, column : column + 11]
            mp, mq = (weight * p).sum(), (weight * q).sum()
            vp, vq = (weight * (p - mp) ** 2).sum(), (weight * (q - mq) ** 2).sum()
            cov = (weight * (p - mp) * (q - mq)).sum()
            c1, c2 = 0.01**2, 0.03**2
            values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def test_ssim_equals_the_definition_window_by_window() -> None:
    a = images(2, seed=0)
    b = (a + 0.2 * images(2, seed=1)).clamp(0, 1)
    expected = [
        np.mean([plain_ssim(p, q) for p, q in zip(x, y, strict=True)])
        for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(ssim(a, b).numpy(), expected, atol=2e-5)


def test_ssim_of_equal_images_is_one_and_of_opposite_ones_negative() -> None:
    a = images(1, seed=0)
    assert ssim(a, a).item() == pytest.approx(1, abs=1e-6)
    assert ssim(a, 1 - a).item() < 0


def test_ssim_needs_one_whole_window() -> None:
    assert ssim(images(1, seed=0, size=(11, 11)), images(1, seed=1, size=(11, 11))).shape == (1,)
    with pytest.raises(WaveOpsError, match="11 x 11"):
        ssim(images(1, seed=0, size=(10, 30)), images(1, seed=1, size=(10, 30)))


@pytest.mark.parametrize(("difference", "decibels"), [(0.1, 20), (0.01, 40), (1, 0)])
def test_psnr_of_a_constant_difference(difference, decibels) -> None:
    a = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    np.testing.assert_allclose(psnr(a, a + difference).numpy(), [decibels, decibels], atol=1e-6)


def test_psnr_is_infinite_where_equal_and_one_figure_per_image() -> None:
    a = torch.zeros(2, 3, 4, 5)
    b = a.clone()
    b[1] = 0.5
    assert psnr(a, b).tolist() == pytest.approx([math.inf, 20 * math.log10(2)])


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_half_precision_images_are_measured_in_float32(metric) -> None:
    assert metric(images(1, seed=0).half(), images(1, seed=1).half()).dtype == torch.float32


def test_the_warp_error_follows_the_flow_and_counts_valid_pixels_only() -> None:
    first = images(1, seed=0, size=(6, 8))
    frames = torch.cat((first, first.roll(2, dims=3), first))
    frames[1, :, 0, 4] += 0.5
    flows = torch.zeros(2, 2, 6, 8)
    flows[0, 0], flows[1, 0] = -2, 2
    valid = torch.zeros(2, 6, 8, dtype=torch.bool)
    valid[0, :3, 2:] = True
    valid[1, 3:, :6] = True
    assert warp_error(frames, flows, valid).tolist() == pytest.approx([0.25 / 18, 0])


def test_the_warp_error_without_valid_pixels_is_not_a_number() -> None:
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    assert warp_error(images(2, seed=0, size=(4, 4)), torch.zeros(1, 2, 4, 4), nothing).isnan().all()


def test_a_bad_number_under_an_invalid_pixel_does_not_spoil_the_error() -> None:
    flow = torch.zeros(1, 2, 4, 4)
    flow[0, 0, 0, 0] = torch.nan
    valid = ~flow.isnan().any(dim=1)
    assert flow_endpoint_error(flow, torch.zeros(1, 2, 4, 4), valid=valid).item() == 0


def test_the_endpoint_error_is_the_mean_distance() -> None:
    flow = torch.zeros(2, 2, 3, 4)
    flow[0, 0], flow[0, 1], flow[1, 1, 0] = 3, 4, 6
    assert flow_endpoint_error(flow, torch.zeros_like(flow)).tolist() == pytest.approx([5, 2])


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ([1, 1, 0, 0], [1, 0, 1, 1], (1 / 2, 1 / 3)),
        ([0, 0, 0, 0], [1, 0, 0, 0], (1, 0)),
        ([1, 0, 0, 0], [0, 0, 0, 0], (0, 1)),
        ([0, 0, 0, 0], [0, 0, 0, 0], (1, 1)),
    ],
)
def test_precision_and_recall_of_known_masks(predicted, truth, expected) -> None:
    masks = (torch.tensor(mask, dtype=torch.bool) for mask in (predicted, truth))
    assert mask_precision_recall(*masks) == pytest.approx(expected)


@pytest.mark.usefixtures("unchecked")
def test_arguments_of_different_shapes_are_refused() -> None:
    a, b = torch.zeros(1, 3, 12, 12), torch.zeros(1, 3, 12, 13)
    for metric in (psnr, ssim):
        with pytest.raises(WaveOpsError, match="one shape"):
            metric(a, b)
    with pytest.raises(WaveOpsError, match="2 pairs"):
        warp_error(torch.zeros(3, 3, 4, 4), torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool))
