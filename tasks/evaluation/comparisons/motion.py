"""The motion of a clip, true or estimated, and the warp errors along it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.evaluation.clips.clip import EvaluationClip
from wave_ops.flow import FlowEstimator
from wave_ops.metrics import source_motion, warp_error
from wave_ops.resize import to_images
from wave_ops.scenes.rendering import Scene

__all__ = ["Flows", "estimated_flows", "finite_scores", "mean", "pair_errors", "true_flows"]

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flows:
    """Flow between neighbouring frames in both directions: entry i is between frame i and frame i + 1."""

    to_prev: NDArray[np.float32]
    """(time - 1, 2, height, width) on the grid of frame i + 1, pointing to frame i; pixels, x then y."""
    to_cur: NDArray[np.float32]
    """The same on the grid of frame i, pointing to frame i + 1."""
    valid: NDArray[np.bool_]
    """(time - 1, height, width): where the target of `to_prev` is visible."""


def true_flows(scene: Scene) -> Flows:
    """Return the true flow of a scene."""
    return Flows(to_prev=scene.flow_to_prev, to_cur=scene.flow_to_cur, valid=~scene.occlusion_to_prev)


def estimated_flows(clip: EvaluationClip, estimate: FlowEstimator) -> Flows:
    """Estimate flow as an edit does; across a cut it is zero and valid nowhere."""
    found = source_motion(clip.frames, estimate=estimate, cuts=clip.cuts)
    return Flows(to_prev=found.to_prev, to_cur=found.to_cur, valid=found.valid)


def pair_errors(frames: Frames, flows: Flows) -> NDArray[np.float64]:
    """Compute the warp error of each pair of neighbouring frames; NaN if no pixel has a match."""
    errors = warp_error(to_images(frames), torch.from_numpy(flows.to_prev), torch.from_numpy(flows.valid))
    return errors.double().numpy()


def mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values; NaN if there are none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def finite_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the finite scores only: the others could not be measured."""
    return {name: float(value) for name, value in scores.items() if np.isfinite(value)}
