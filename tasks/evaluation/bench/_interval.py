"""What one whole interval between two keyframes costs: seconds here, memory in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.errors import TaskInputError
from tasks.evaluation.bench.figures import Figure, least_seconds, told
from tasks.evaluation.comparison import Measure
from tasks.evaluation.comparisons.propagation_baselines import warm_up
from wave_ops.propagation import KeyframeInterval, propagate_interval

__all__ = ["interval_figures", "memory_figures", "propagated"]

_SECONDS = Measure(name="interval CPU seconds", unit="s", better="lower", bar=60.0)
_CUDA_SECONDS = Measure(name="interval CUDA seconds", unit="s", better="lower", bar=1.0)
_PEAK = Measure(name="peak memory", unit="MB", better="lower", bar=2048.0)
_BEFORE = Measure(name="memory at start", unit="MB", better="lower")
_GROWTH = Measure(name="memory growth", unit="MB", better="lower")
_PER_FRAME = Measure(name="CPU seconds a frame", unit="s", better="lower")
_LENGTHS: Final = (4, 8)
_PROBE: Final = "tasks.evaluation.bench._probe_memory"


def interval_figures(interval: KeyframeInterval, *, name: str, held: bool) -> Iterator[Figure]:
    """Carry an edit through an interval from both keyframes, blend and fuse: CPU seconds, and seconds with CUDA.

    Args:
        interval: frames, edited keyframes and flow.
        name: of what is shown.
        held: whether the seconds are held to their bars, which are set for 8 frames of 512 x 512 pixels.
    """
    warm_up()
    seconds, _ = least_seconds(lambda: propagated(interval))
    yield Figure(measure=_SECONDS if held else told(_SECONDS), subject=name, value=seconds)
    if torch.cuda.is_available():
        yield Figure(
            measure=_CUDA_SECONDS if held else told(_CUDA_SECONDS), subject=name, value=_cuda_seconds(interval)
        )


def propagated(interval: KeyframeInterval, **options: Any) -> NDArray[np.uint8]:
    """Propagate an interval; options are those of `propagate_interval`."""
    return propagate_interval(
        interval.frames,
        first=interval.first,
        last=interval.last,
        flows_to_prev=interval.to_prev,
        flows_to_cur=interval.to_cur,
        **options,
    )


def _cuda_seconds(interval: KeyframeInterval) -> float:
    """Wall seconds on the GPU, frames in and frames out, after a first run that loads its kernels."""
    propagated(interval, device="cuda")
    return least_seconds(lambda: propagated(interval, device="cuda"), repeats=3, clock=perf_counter)[0]


def memory_figures(size: tuple[int, int], *, held: bool) -> Iterator[Figure]:
    """Carry intervals of two lengths, each in a fresh process: how much memory it took at most, and how long a frame.

    Megabytes are of 2^20 bytes, and count the interpreter with everything it has imported.

    Args:
        size: height and width, pixels.
        held: whether the peak is held to its bar, which is set for 1280 x 720.
    """
    peaks = {}
    for length in _LENGTHS:
        found = _probe(size, length)
        peaks[length] = found["peak"]
        subject = f"{size[1]}x{size[0]}, K = {length}"
        yield Figure(measure=told(_BEFORE), subject=subject, value=found["before"])
        yield Figure(measure=_PEAK if held else told(_PEAK), subject=subject, value=found["peak"])
        yield Figure(measure=_PER_FRAME, subject=subject, value=found["seconds"] / (length - 1))
    short, long = _LENGTHS
    subject = f"{size[1]}x{size[0]}, K = {short} to {long}"
    yield Figure(measure=_GROWTH, subject=subject, value=peaks[long] - peaks[short])


def _probe(size: tuple[int, int], length: int) -> dict[str, float]:
    """Run one interval in a process of its own, on the very code that runs here."""
    root = str(Path(__file__).parents[3])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", _PROBE, *map(str, (*size, length))]
    ended = subprocess.run(  # noqa: S603  (this interpreter, our own module, three numbers)
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths}
    )
    if ended.returncode != 0:
        reason = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise TaskInputError(f"The process that measures memory ended with code {ended.returncode}: {reason}.")
    found: dict[str, float] = json.loads(ended.stdout)
    return found
