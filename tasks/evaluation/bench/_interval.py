"""Seconds and memory of a whole interval between two keyframes; memory is measured in a separate process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.bench._child import run_probe
from tasks.evaluation.bench.measurements import Measurement, least_seconds, without_target
from tasks.evaluation.comparisons.comparison import Measure
from tasks.evaluation.comparisons.propagation_baselines import warm_up
from wave_ops.propagation import KeyframeInterval, propagate_interval

__all__ = ["measure_interval", "measure_memory", "propagate"]

_SECONDS = Measure(name="interval CPU seconds", unit="s", better="lower", target=60.0)
_CUDA_SECONDS = Measure(name="interval CUDA seconds", unit="s", better="lower", target=1.0)
_PEAK = Measure(name="peak memory", unit="MB", better="lower", target=2048.0)
_BEFORE = Measure(name="memory at start", unit="MB", better="lower")
_GROWTH = Measure(name="memory growth", unit="MB", better="lower")
_PER_FRAME = Measure(name="CPU seconds per frame", unit="s", better="lower")
_LENGTHS: Final = (4, 8)
_PROBE: Final = "tasks.evaluation.bench._probe_memory"


def measure_interval(
    interval: KeyframeInterval, *, devices: Sequence[str], name: str, check_target: bool
) -> Iterator[Measurement]:
    """Propagate an edit through an interval from both keyframes, blend and fuse: CPU seconds, and CUDA seconds.

    Args:
        interval: frames, edited keyframes and flow.
        devices: one measurement for each: "cpu", or a CUDA device.
        name: the subject of the measurement.
        check_target: whether the targets apply, which are set for 8 frames of 512 x 512 pixels.
    """
    for device in devices:
        measure, seconds = (_SECONDS, _cpu_seconds) if device == "cpu" else (_CUDA_SECONDS, _cuda_seconds)
        yield Measurement(
            measure=measure if check_target else without_target(measure), subject=name, value=seconds(interval)
        )


def propagate(interval: KeyframeInterval, **options: Any) -> NDArray[np.uint8]:
    """Propagate an interval; options are those of `propagate_interval`."""
    return propagate_interval(
        interval.frames,
        first=interval.first,
        last=interval.last,
        flows_to_prev=interval.to_prev,
        flows_to_cur=interval.to_cur,
        **options,
    )


def _cpu_seconds(interval: KeyframeInterval) -> float:
    """Measure CPU seconds, without the time of compiling."""
    warm_up()
    return least_seconds(lambda: propagate(interval))[0]


def _cuda_seconds(interval: KeyframeInterval) -> float:
    """Measure wall seconds on the GPU, including transfers, after a first run that loads the kernels."""
    propagate(interval, device="cuda")
    return least_seconds(lambda: propagate(interval, device="cuda"), repeats=3, clock=perf_counter)[0]


def measure_memory(size: tuple[int, int], *, check_target: bool) -> Iterator[Measurement]:
    """Propagate intervals of two lengths, each in a new process: peak memory, and seconds per frame.

    Megabytes are 2^20 bytes, and include the interpreter with all imported modules.

    Args:
        size: height and width, pixels.
        check_target: whether the target of the peak applies, which is set for 1280 x 720.
    """
    peaks = {}
    for length in _LENGTHS:
        found = _probe(size, length)
        peaks[length] = found["peak"]
        subject = f"{size[1]}x{size[0]}, K = {length}"
        yield Measurement(measure=_BEFORE, subject=subject, value=found["before"])
        yield Measurement(
            measure=_PEAK if check_target else without_target(_PEAK), subject=subject, value=found["peak"]
        )
        yield Measurement(measure=_PER_FRAME, subject=subject, value=found["seconds"] / (length - 1))
    short, long = _LENGTHS
    subject = f"{size[1]}x{size[0]}, K = {short} to {long}"
    yield Measurement(measure=_GROWTH, subject=subject, value=peaks[long] - peaks[short])


def _probe(size: tuple[int, int], length: int) -> dict[str, float]:
    return run_probe(_PROBE, *size, length)
