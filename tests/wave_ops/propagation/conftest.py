"""Small clips with known flow, drawn plainly."""

from __future__ import annotations

import numpy as np
import pytest
import torch


def texture(height: int, width: int, *, seed: int = 0, left: float = 0) -> np.ndarray:
    """Smooth coloured noise from column `left` on, so that every place looks different, in 0..255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    x = x + left
    image = np.zeros((height, width, 3))
    for channel in range(3):
        for _ in range(8):
            fy, fx, phase = rng.uniform(-0.35, 0.35), rng.uniform(-0.35, 0.35), rng.uniform(0, 6.3)
            image[..., channel] += np.sin(fy * y + fx * x + phase)
    return np.clip(128 + 28 * image, 0, 255)


def pan(count: int, height: int, width: int, *, step: float = 1, seed: int = 0) -> tuple[np.ndarray, ...]:
    """A camera that moves right by `step` pixels a frame: frames, flows to the frame before, flows to the next."""
    frames = np.stack([texture(height, width, seed=seed, left=i * step) for i in range(count)]).astype(np.uint8)
    flows = np.zeros((count - 1, 2, height, width), np.float32)
    flows[:, 0] = step
    return frames, flows, -flows


def square(count: int, height: int, width: int, *, step: int = 3) -> tuple[np.ndarray, ...]:
    """A textured square that slides right over a textured ground, with its exact flow in both directions."""
    ground, thing = texture(height, width, seed=1) * 0.5, texture(20, 20, seed=2) * 0.5 + 127
    frames, inside = [], []
    for i in range(count):
        frame, mask = ground.copy(), np.zeros((height, width), bool)
        place = np.s_[height // 2 - 10 : height // 2 + 10, 8 + step * i : 28 + step * i]
        frame[place], mask[place] = thing, True
        frames.append(frame)
        inside.append(mask)
    flow = np.zeros((count - 1, 2, height, width), np.float32)
    to_prev, to_cur = flow.copy(), flow.copy()
    for i in range(count - 1):
        to_prev[i, 0][inside[i + 1]], to_cur[i, 0][inside[i]] = -step, step
    return np.stack(frames).astype(np.uint8), to_prev, to_cur


@pytest.fixture
def make_pan():
    return pan


@pytest.fixture
def make_square():
    return square


@pytest.fixture(scope="session")
def make_texture():
    return texture


CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
)


@pytest.fixture(params=[None, "cpu", CUDA], ids=["compiled", "torch-cpu", "torch-cuda"])
def device(request):
    """The search to propagate with: None is the compiled one, a torch device the other."""
    return request.param


@pytest.fixture(params=["cpu", CUDA])
def torch_device(request):
    """A device for operations that exist in torch only."""
    return request.param
