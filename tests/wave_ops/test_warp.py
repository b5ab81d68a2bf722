from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.warp import backward_warp, flow_positions, inside_frame, resize_flow

MODES = ("bilinear", "nearest")
PADDINGS = ("border", "reflection", "zeros")


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def constant_flow(dx: float, dy: float, *, size: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor([dx, dy], dtype=dtype).view(1, 2, 1, 1).expand(1, 2, *size).clone()


def plain_pixel(image: Tensor, x: int, y: int, *, padding: str) -> float:
    """Return one pixel of one channel, with padding."""
    height, width = image.shape
    if padding == "zeros":
        return float(image[y, x]) if 0 <= x < width and 0 <= y < height else 0.0
    return float(image[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])


def mirror(position: float, extent: int) -> float:
    """Reflect a position about the edges -0.5 and extent - 0.5 until it lies between them."""
    while not -0.5 <= position <= extent - 0.5:
        position = -1 - position if position < -0.5 else 2 * extent - 1 - position
    return position


def plain_warp(image: Tensor, flow: Tensor, *, mode: str, padding: str) -> Tensor:
    """Warp one channel pixel by pixel."""
    height, width = image.shape
    out = torch.empty(height, width)
    for row in range(height):
        for column in range(width):
            x, y = column + float(flow[0, row, column]), row + float(flow[1, row, column])
            if padding == "reflection":
                x, y = mirror(x, width), mirror(y, height)
            if padding != "zeros":
                x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
            if mode == "nearest":
                out[row, column] = plain_pixel(image, round(x), round(y), padding=padding)
                continue
            left, top = math.floor(x), math.floor(y)
            out[row, column] = sum(
                (1 - abs(x - i)) * (1 - abs(y - j)) * plain_pixel(image, i, j, padding=padding)
                for i in (left, left + 1)
                for j in (top, top + 1)
            )
    return out


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_warping_equals_a_plain_loop_over_pixels(mode, padding) -> None:
    x, flow = features(2, 3, 7, 9), features(2, 2, 7, 9, seed=1) * 6
    expected = torch.stack(
        [torch.stack([plain_warp(c, f, mode=mode, padding=padding) for c in b]) for b, f in zip(x, flow, strict=True)]
    )
    torch.testing.assert_close(backward_warp(x, flow, mode=mode, padding=padding), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_warping_agrees_with_grid_sample(mode, padding) -> None:
    x, flow = features(2, 3, 12, 17), features(2, 2, 12, 17, seed=1) * 9
    extent = torch.tensor([17.0, 12.0]).view(1, 2, 1, 1)
    grid = ((2 * flow_positions(flow) + 1) / extent - 1).permute(0, 2, 3, 1)
    expected = F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=False)
    torch.testing.assert_close(backward_warp(x, flow, mode=mode, padding=padding), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_zero_flow_is_the_identity_bit_for_bit(mode, padding, dtype) -> None:
    x = features(1, 3, 11, 333).to(dtype)
    warped = backward_warp(x, torch.zeros(1, 2, 11, 333, dtype=dtype), mode=mode, padding=padding)
    assert warped.dtype == dtype
    assert torch.equal(warped, x)


@given(dx=st.integers(-9, 9), dy=st.integers(-5, 5), mode=st.sampled_from(MODES), padding=st.sampled_from(PADDINGS))
def test_a_whole_pixel_shift_is_exact_inside(dx: int, dy: int, mode: str, padding: str) -> None:
    x = features(1, 2, 6, 10)
    warped = backward_warp(x, constant_flow(dx, dy, size=(6, 10)), mode=mode, padding=padding)
    rows, columns = range(max(0, -dy), min(6, 6 - dy)), range(max(0, -dx), min(10, 10 - dx))
    for row in rows:
        for column in columns:
            assert torch.equal(warped[..., row, column], x[..., row + dy, column + dx])


@given(st.floats(-3, 3), st.floats(-3, 3), st.sampled_from(MODES), st.sampled_from(PADDINGS))
def test_warping_is_linear_in_the_features(a: float, b: float, mode: str, padding: str) -> None:
    x, y, flow = features(1, 2, 8, 9), features(1, 2, 8, 9, seed=1), features(1, 2, 8, 9, seed=2) * 4
    together = backward_warp(a * x + b * y, flow, mode=mode, padding=padding)
    apart = a * backward_warp(x, flow, mode=mode, padding=padding) + b * backward_warp(
        y, flow, mode=mode, padding=padding
    )
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [("border", [0, 0, 0, 0]), ("reflection", [2, 1, 0, 0]), ("zeros", [0, 0, 0, 0])],
)
def test_reflection_repeats_the_edge_pixel_once(padding, expected) -> None:
    x = torch.arange(4.0).view(1, 1, 1, 4)
    assert backward_warp(x, constant_flow(-3, 0, size=(1, 4)), padding=padding).flatten().tolist() == expected


def test_a_zero_padded_pixel_fades_at_the_edge() -> None:
    x = torch.ones(1, 1, 1, 4)
    warped = backward_warp(x, constant_flow(-0.25, 0, size=(1, 4)), padding="zeros")
    assert warped.flatten().tolist() == [0.75, 1, 1, 1]


def test_positions_are_float32_for_a_half_precision_flow() -> None:
    x = features(1, 1, 1, 4096)
    flow = constant_flow(1, 0, size=(1, 4096), dtype=torch.float16)
    assert torch.equal(backward_warp(x, flow)[..., :-1], x[..., 1:])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e30])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_a_wild_flow_never_reads_outside_the_image(mode, padding, bad) -> None:
    assert backward_warp(
        features(1, 1, 4, 5), constant_flow(bad, 0, size=(4, 5)), mode=mode, padding=padding
    ).shape == (1, 1, 4, 5)


def test_the_frame_extends_to_the_pixel_edges() -> None:
    positions = torch.tensor([[-0.51, -0.5, 0.0, 2.5, 2.51], [0.0] * 5]).view(1, 2, 1, 5)
    assert inside_frame(positions[..., :3]).tolist() == [[[False, True, True]]]
    assert inside_frame(positions[..., 2:]).tolist() == [[[True, True, False]]]


@pytest.mark.parametrize("size", [(6, 4), (24, 32), (3, 16)])
def test_resizing_a_flow_rescales_its_values(size) -> None:
    resized = resize_flow(constant_flow(8, -6, size=(12, 16)), size)
    torch.testing.assert_close(resized, constant_flow(8 * size[1] / 16, -6 * size[0] / 12, size=size))


def test_eight_pixels_at_512_are_one_cell_at_64() -> None:
    assert torch.equal(resize_flow(constant_flow(8, 8, size=(512, 512)), (64, 64)), constant_flow(1, 1, size=(64, 64)))


def test_a_flow_of_the_requested_size_is_returned_as_the_same_object() -> None:
    flow = features(1, 2, 4, 5)
    assert resize_flow(flow, (4, 5)) is flow


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_resizing_a_flow_keeps_its_dtype(dtype) -> None:
    assert resize_flow(constant_flow(2, 2, size=(4, 4), dtype=dtype), (2, 2)).dtype == dtype


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("x", "flow", "options"),
    [
        ((1, 3, 4, 5), (1, 2, 4, 6), {}),
        ((2, 3, 4, 5), (1, 2, 4, 5), {}),
        ((1, 3, 4, 5), (1, 3, 4, 5), {}),
        ((1, 3, 4, 5), (2, 4, 5), {}),
        ((3, 4, 5), (1, 2, 4, 5), {}),
        ((1, 3, 4, 5), (1, 2, 4, 5), {"mode": "cubic"}),
        ((1, 3, 4, 5), (1, 2, 4, 5), {"padding": "wrap"}),
    ],
)
def test_features_and_flow_that_do_not_match_are_refused(x, flow, options) -> None:
    with pytest.raises(WaveOpsError, match="expected"):
        backward_warp(torch.zeros(x), torch.zeros(flow), **options)


@pytest.mark.parametrize("size", [(0, 4), (4, -1)])
def test_a_size_without_pixels_is_refused(size) -> None:
    with pytest.raises(WaveOpsError, match="at least 1 pixel"):
        resize_flow(torch.zeros(1, 2, 4, 4), size)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_on_the_gpu_moves_whole_pixels_as_the_cpu_does(mode, padding) -> None:
    x, flow = features(2, 8, 64, 64).half(), (features(2, 2, 64, 64, seed=1) * 8).round()
    warped = backward_warp(x.cuda(), flow.cuda(), mode=mode, padding=padding)
    assert torch.equal(warped.cpu(), backward_warp(x, flow, mode=mode, padding=padding))
