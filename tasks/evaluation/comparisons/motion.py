"""How a clip moves, true or estimated, and what is measured by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.evaluation.comparison import EvaluationClip
from wave_ops.flow import FlowEstimator
from wave_ops.masks import occlusion_mask
from wave_ops.metrics import warp_error
from wave_ops.resize import to_images
from wave_ops.scenes.rendering import Scene

__all__ = ["Flows", "estimated_flows", "known", "mean", "pair_errors", "true_flows"]

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flows:
    """Flow between neighbouring frames, both ways: entry i is between frame i and frame i + 1."""

    to_prev: NDArray[np.float32]
    """(time - 1, 2, height, width) on the grid of frame i + 1, pixels, x then y."""
    to_cur: NDArray[np.float32]
    valid: NDArray[np.bool_]
    """(time - 1, height, width): where `to_prev` points to what is seen there."""


def true_flows(scene: Scene) -> Flows:
    """The flow that a scene was drawn with."""
    return Flows(to_prev=scene.flow_to_prev, to_cur=scene.flow_to_cur, valid=~scene.occlusion_to_prev)


def estimated_flows(clip: EvaluationClip, estimate: FlowEstimator) -> Flows:
    """The flow as an edit estimates it: zero, and valid nowhere, across a cut."""
    size = clip.frames.shape[1:3]
    nothing = np.zeros((2, *size), np.float32)
    pairs = [
        (nothing, nothing) if i in clip.cuts else estimate(clip.frames[i - 1], clip.frames[i])
        for i in range(1, len(clip.frames))
    ]
    to_prev, to_cur = (np.stack([nothing, *side])[1:] for side in ([pair[way] for pair in pairs] for way in (0, 1)))
    hidden = occlusion_mask(torch.from_numpy(to_prev), torch.from_numpy(to_cur)).numpy()
    hidden[[cut - 1 for cut in clip.cuts]] = True
    return Flows(to_prev=to_prev, to_cur=to_cur, valid=~hidden)


def pair_errors(frames: Frames, flows: Flows) -> NDArray[np.float64]:
    """The warp error of each pair of neighbouring frames; not a number where no pixel has a match."""
    errors = warp_error(to_images(frames), torch.from_numpy(flows.to_prev), torch.from_numpy(flows.valid))
    return errors.double().numpy()


def mean(values: Iterable[float]) -> float:
    """The mean of the finite values; not a number where there is none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def known(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores that are finite: what could not be measured is left out."""
    return {name: float(value) for name, value in scores.items() if np.isfinite(value)}
