"""Seconds of gradient fusion, and its deviation from the least-squares solution."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, eye_array, kron
from scipy.sparse.linalg import cg

from tasks.evaluation.bench.measurements import Measurement, least_seconds, without_target
from tasks.evaluation.comparisons.comparison import Measure
from wave_ops.propagation import PropagationSettings, fuse_gradients, selected_gradients

__all__ = ["measure_fusion"]

Floats = NDArray[np.floating]

_SECONDS = Measure(name="fusion seconds", unit="s", better="lower", target=0.15)
_DEVIATION = Measure(name="fusion deviation", unit="of 255", better="lower", target=1e-4)
_TOLERANCE = 1e-11


def measure_fusion(size: tuple[int, int], *, check_target: bool) -> Iterator[Measurement]:
    """Fuse two noise images by a random selection: wall seconds, and deviation from the least-squares solution.

    Args:
        size: height and width, pixels.
        check_target: whether the target of the seconds applies, which is set for 512 x 512.
    """
    rng = np.random.default_rng(0)
    first, last = torch.from_numpy(rng.uniform(0, 255, (2, 3, *size)).astype(np.float32))
    middle = (first + last) / 2
    across, down = selected_gradients(first, last, torch.from_numpy(rng.random(size) < 0.5))
    weights = PropagationSettings().gradient_weights
    seconds, fused = least_seconds(
        lambda: fuse_gradients(middle, across, down, weights=weights), repeats=7, clock=perf_counter
    )
    subject = f"{size[1]}x{size[0]}"
    yield Measurement(measure=_SECONDS if check_target else without_target(_SECONDS), subject=subject, value=seconds)
    given = zip(*(values.numpy() for values in (middle, across, down)), weights, strict=True)
    solutions = [_least_squares(*channel) for channel in given]
    deviation = float(np.abs(fused.numpy() - np.stack(solutions)).max())
    yield Measurement(measure=_DEVIATION, subject=subject, value=deviation / 255)


def _least_squares(values: Floats, across: Floats, down: Floats, weight: float) -> NDArray[np.float64]:
    """Minimise |x - values|^2 + weight^2 |grad x - gradients|^2 as one sparse system, by conjugate gradients."""
    height, width = values.shape
    along_x = kron(eye_array(height), _steps(width), format="csr")
    along_y = kron(_steps(height), eye_array(width), format="csr")
    square = weight**2
    system = eye_array(height * width, format="csr") + square * (along_x.T @ along_x + along_y.T @ along_y)
    right_side = values.ravel().astype(np.float64) + square * (along_x.T @ across.ravel() + along_y.T @ down.ravel())
    solution, _ = cg(system, right_side, rtol=_TOLERANCE, maxiter=2_000)
    return np.asarray(solution, np.float64).reshape(height, width)


def _steps(count: int) -> csr_array:
    """Return the matrix of forward differences of a line of pixels, (count - 1, count)."""
    return csr_array(diags_array([-1.0, 1.0], offsets=[0, 1], shape=(count - 1, count)))
