"""The motion of a clip, true or estimated, and the warp errors along it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.evaluation.clips.clip import EvaluationClip
from wave_ops.flow import FlowEstimator
from wave_ops.masks import occlusion_mask
from wave_ops.metrics import warp_error
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
    size = clip.frames.shape[1:3]
    nothing = np.zeros((2, *size), np.float32)
    pairs = [
        (nothing, nothing) if i in clip.cuts else estimate(clip.frames[i - 1], clip.frames[i])
        for i in range(1, len(clip.frames))
    ]
    # The zero flow in front keeps the shape for a clip of one frame, which has no pairs
    to_prev, to_cur = (np.stack([nothing, *(pair[side] for pair in pairs)])[1:] for side in (0, 1))
    hidden = occlusion_mask(torch.from_numpy(to_prev), torch.from_numpy(to_cur)).numpy()
    hidden[[cut - 1 for cut in clip.cuts]] = True
    return Flows(to_prev=to_prev, to_cur=to_cur, valid=~hidden)


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
