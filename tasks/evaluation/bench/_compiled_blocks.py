"""UNet calls with compiled blocks over calls without, and how long the first call takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any, Final

from tasks.evaluation.bench._unet_calls import UNetCalls, interleaved
from tasks.evaluation.bench.measurements import Measurement
from tasks.evaluation.comparisons.comparison import Measure
from wave_ops.cuda_graphs import CudaGraphs
from wave_ops.sites import resolve_sites
from wave_ops.unet import compile_blocks, uncompile_blocks

__all__ = ["measure_compiled"]

_RATIO: Final = Measure(name="UNet call with compiled blocks over plain", unit="", better="lower")
_FIRST: Final = Measure(name="first UNet call with compiled blocks", unit="s", better="lower")


def measure_compiled(calls: UNetCalls, **options: Any) -> Iterator[Measurement]:
    """Compile the blocks of a UNet for one shape, and compare its calls with those before.

    Args:
        calls: the UNet and its batch.
        options: further arguments of `torch.compile`.
    """
    unet = calls.model.unet
    (plain,) = interleaved(calls.plain, device=calls.model.device, repeats=calls.repeats)
    compile_blocks(unet, sites=resolve_sites(unet), **options)
    try:
        fresh = replace(calls, _graphs=CudaGraphs())
        began = perf_counter()
        interleaved(fresh.plain, device=calls.model.device, repeats=1)
        yield Measurement(measure=_FIRST, subject=calls.name, value=perf_counter() - began)
        (compiled,) = interleaved(fresh.plain, device=calls.model.device, repeats=calls.repeats)
        yield Measurement(measure=_RATIO, subject=calls.name, value=compiled / plain)
    finally:
        uncompile_blocks(unet)
