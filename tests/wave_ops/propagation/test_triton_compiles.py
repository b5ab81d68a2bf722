"""The kernel of patch errors compiled for a GPU on a machine that has none, by Triton's own compiler."""

from __future__ import annotations

import pytest
import torch

triton = pytest.importorskip("triton", reason="needs Triton")
compiler = pytest.importorskip("triton.backends.compiler", reason="needs Triton")

from wave_ops.propagation import triton_errors  # noqa: E402
from wave_ops.propagation.patch_match import CHANNELS, PATCH  # noqa: E402


class NoGpu:
    """What Triton asks a driver for before it compiles."""

    def get_current_target(self):
        return compiler.GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0


@pytest.mark.skipif(triton.backends.backends.get("nvidia") is None, reason="Triton was built for other GPUs")
def test_the_kernel_compiles_for_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # or it would be read from a person's cache
    monkeypatch.setattr(triton.runtime.driver, "_active", NoGpu())
    image, place = torch.zeros(1, PATCH, PATCH, CHANNELS), torch.full((1, 1, 1), 12, dtype=torch.int32)
    sizes = {"PATCH": PATCH, "CHANNELS": CHANNELS, "PIXELS": triton_errors._PIXELS}
    numbers = (1, 1, PATCH, 0.5)
    limit = place.float()
    compiled = triton_errors._kernel.warmup(image, image, place, place, limit, limit, *numbers, **sizes, grid=(1, 1))
    assert ".visible .entry _errors_below" in compiled.asm["ptx"]
