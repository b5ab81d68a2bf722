"""The matmul rate of UNet calls as a fraction of that of a plain matrix product on the same device, in one run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch.utils.flop_counter import FlopCounterMode

from tasks.evaluation.bench._unet_calls import UNetCalls, interleaved
from tasks.evaluation.bench.measurements import Measurement, without_target
from tasks.evaluation.comparisons.comparison import Measure

__all__ = ["measure_matmul"]

_UTILISATION: Final = Measure(name="matmul utilisation of UNet calls", unit="fraction", better="higher", target=0.4)
_OPERATIONS: Final = Measure(name="operations of a UNet call", unit="TFLOP", better="lower")
_RATE: Final = Measure(name="matrix product", unit="TFLOP/s", better="higher")


def measure_matmul(calls: UNetCalls, *, check_target: bool) -> Iterator[Measurement]:
    """Count the operations of a UNet call, and compare its rate with that of a product of large square matrices.

    Args:
        calls: the UNet and its batch.
        check_target: whether the target applies, which is set for a GPU.
    """
    device, dtype = calls.model.device, calls.model.dtype
    side = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        calls.output(calls.inputs(1))
    operations = counter.get_total_flops()
    product, call = interleaved(lambda: matrix @ matrix, calls.plain, device=device, repeats=calls.repeats)
    rate = 2 * side**3 / product
    yield Measurement(measure=_OPERATIONS, subject=calls.name, value=operations / 1e12)
    yield Measurement(measure=_RATE, subject=f"{side}x{side}", value=rate / 1e12)
    yield Measurement(
        measure=_UTILISATION if check_target else without_target(_UTILISATION),
        subject=calls.name,
        value=operations / call / rate,
    )
