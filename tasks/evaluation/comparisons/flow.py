"""The comparison of optical flow estimators, and of the masks computed from their flow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.clips.scene_clips import scene_clips
from tasks.evaluation.clips.true_flow import FlowClip, flo_clips
from tasks.evaluation.comparisons.comparison import Measure, Method, Outcome, Resources
from tasks.evaluation.comparisons.motion import finite_scores, mean
from tasks.models.flow_estimators import FlowIdentity, load_flow
from wave_ops.flow import DisPreset, FlowEstimator, RaftSize, build_raft, dis_flow
from wave_ops.flow_colours import flow_pictures, longest_of
from wave_ops.masks import WarpMaskSettings, occlusion_mask, warp_mask
from wave_ops.metrics import flow_endpoint_error, mask_precision_recall
from wave_ops.resize import to_images

__all__ = ["COMPARISON", "FlowComparison"]

Flow = NDArray[np.float32]

_DIS: Final[Mapping[str, DisPreset]] = {"DIS medium": "medium", "DIS fast": "fast", "DIS ultrafast": "ultrafast"}
_RAFT: Final[Mapping[str, RaftSize]] = {"RAFT large": "large", "RAFT small": "small"}
_FAR: Final = 4.0
"""Pixels: half a cell of a latent grid; a larger error takes the feature from another cell."""
_FACTOR_NAMES: Final = {("squared", True): "squared occlusion", ("residual", None): "no residual"}
_FRAMES: Final = 17
_KEYFRAMES: Final = 3
"""Frames over the same motion: as many as an edit of the longer clip has keyframes."""


class FlowComparison:
    """Estimators on neighbouring frames and on neighbouring keyframes, and thresholds of occlusion and warp mask.

    RAFT is measured if the run has its weights; another size is read from a file in the same folder.
    """

    name = "flow"
    title = "How accurate are estimated flow, occlusion and warp masks, and at what cost?"
    version = 2
    baseline = "DIS medium"
    measures: tuple[Measure, ...] = (
        Measure(name="end-point error", unit="px", better="lower"),
        Measure(name="end-point error, visible", unit="px", better="lower"),
        Measure(name="occlusion precision", unit="fraction", better="higher"),
        Measure(name="occlusion recall", unit="fraction", better="higher"),
        Measure(name="mask precision", unit="fraction", better="higher"),
        Measure(name="mask recall", unit="fraction", better="higher"),
        Measure(name="warped", unit="fraction"),
        Measure(name="warped from afar", unit="fraction", better="lower"),
        Measure(name="seconds", unit="s", better="lower"),
    )

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """List every estimator with the method's thresholds, then the default estimator with other thresholds."""
        estimators = [_method(name) for name in (*_DIS, *_RAFT)]
        others = [
            _method("DIS medium", residual=0.02),
            _method("DIS medium", residual=0.08),
            _method("DIS medium", residual=None),
            _method("DIS medium", squared=True),
        ]
        return tuple(estimators) if quick else (*estimators, *others)

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw scenes: one half with every frame, the other with keyframes only."""
        total, side = count or (4 if quick else 32), 128 if quick else 256
        slow = scene_clips((total + 1) // 2, seed=seed, frame_count=_FRAMES, size=(side, side))
        fast = scene_clips(total // 2, seed=seed, frame_count=_KEYFRAMES, size=(side, side)) if total > 1 else ()
        far = (replace(clip, name=f"{clip.name}-keyframes", group=f"{clip.group}, keyframes") for clip in fast)
        return (*slow, *far)

    def manifest_clips(self, path: Path, *, count: int | None) -> tuple[EvaluationClip, ...]:
        """Read a folder of .flo files with their frames.

        Raises:
            TaskInputError: as `flo_clips` does.
        """
        return flo_clips(path, count=count)

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Estimate the flow of a clip once for each estimator, and measure it with the thresholds of every method."""
        truth = _truth(clip)

        @cache
        def estimates(name: str) -> tuple[Flow, float] | None:
            estimator = _estimator(name, resources)
            return None if estimator is None else _estimate(estimator, clip.frames)

        for method in methods:
            found = estimates(method.factors["estimator"])
            yield method, Outcome(scores={}) if found is None else _outcome(method, truth, *found)


def _method(estimator: str, **factors: Any) -> Method:
    """Build a method from an estimator and mask thresholds; `factors` change the published thresholds."""
    thresholds = {"residual": 0.04, "relative": 0.01, "absolute": 0.5, "squared": False}
    named = [_FACTOR_NAMES.get((key, value), f"{key} {value}") for key, value in factors.items()]
    return Method(name=", ".join([estimator, *named]), factors={"estimator": estimator, **thresholds, **factors})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Truth:
    """The true flow of a clip, as far as it is known, in two directions per pair: to the frame before, then after."""

    here: NDArray[np.uint8]
    """(direction, height, width, 3): the frame that defines the grid of the flow."""
    there: NDArray[np.uint8]
    """The frame that the flow points to."""
    flow: Flow
    """(direction, 2, height, width); NaN where it is unknown."""
    hidden: NDArray[np.bool_] | None
    """(direction, height, width): pixels of `here` that are occluded in `there`; None if that is unknown."""


def _truth(clip: EvaluationClip) -> _Truth:
    prev, cur = clip.frames[:-1], clip.frames[1:]
    to_prev = np.full((len(prev), 2, *clip.frames.shape[1:3]), np.nan, np.float32)
    to_cur, hidden = to_prev.copy(), None
    if clip.scene is not None:
        inside = [pair for pair in range(len(prev)) if pair + 1 not in clip.cuts]
        to_prev[inside], to_cur[inside] = clip.scene.flow_to_prev[inside], clip.scene.flow_to_cur[inside]
        hidden = _alternating(clip.scene.occlusion_to_prev, clip.scene.occlusion_to_cur)
    if isinstance(clip, FlowClip):
        to_cur[0] = clip.truth
    return _Truth(
        here=_alternating(cur, prev), there=_alternating(prev, cur), flow=_alternating(to_prev, to_cur), hidden=hidden
    )


def _alternating(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    return np.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def _estimator(name: str, resources: Resources) -> FlowEstimator | None:
    """Load an estimator by its name; return None for a RAFT without weights."""
    if name in _DIS:
        return dis_flow(_DIS[name])
    weights = _raft_weights(resources.flow, _RAFT[name])
    return None if weights is None else load_flow(weights, device=resources.device)


def _raft_weights(identity: FlowIdentity, size: RaftSize) -> FlowIdentity | None:
    """Find the weights of a RAFT of this size: the run's own file, or one in the same folder."""
    if identity.name != "raft":
        return None
    own = Path(identity.location)
    expected = set(build_raft(size).state_dict())
    others = (path for path in sorted(own.parent.glob("raft*.safetensors")) if path != own)
    fitting = (path for path in (own, *others) if _tensor_names(path) == expected)
    return next((replace(identity, location=str(path)) for path in fitting), None)


def _tensor_names(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


def _estimate(estimator: FlowEstimator, frames: NDArray[np.uint8]) -> tuple[Flow, float]:
    """Return flow in all directions as in `_Truth`, and seconds per pair; the first call, a warm-up, is not timed."""
    estimator(frames[0], frames[1])
    started = perf_counter()
    pairs = [estimator(prev, cur) for prev, cur in pairwise(frames)]
    seconds = (perf_counter() - started) / len(pairs)
    return np.stack([flow for pair in pairs for flow in pair]), seconds


def _outcome(method: Method, truth: _Truth, flow: Flow, seconds: float) -> Outcome:
    longest = longest_of(truth.flow)
    shown = [1, *range(0, len(flow), 2)]  # on the grid of each frame in turn
    return Outcome(
        scores=finite_scores(_scores(method.factors, truth, flow) | {"seconds": seconds}),
        frames=flow_pictures(flow[shown], longest=longest),
        reference=flow_pictures(truth.flow[shown], longest=longest),
    )


def _scores(factors: Mapping[str, Any], truth: _Truth, estimate: Flow) -> dict[str, float]:
    """Compute metrics over all directions; NaN if the truth is unknown."""
    flow, back = (torch.from_numpy(each) for each in (estimate, _opposite(estimate)))
    limits = {name: factors[name] for name in ("relative", "absolute", "squared")}
    residual = inf if factors["residual"] is None else factors["residual"]
    occluded = occlusion_mask(flow, back, **limits)
    there, here = to_images(truth.there), to_images(truth.here)
    warped = warp_mask(there, here, flow, back, settings=WarpMaskSettings(residual_threshold=residual, **limits))
    return {
        **_flow_scores(flow, truth, warped),
        **_mask_scores(occluded, warped, truth),
        "warped": float(warped.float().mean()),
    }


def _opposite(flow: Flow) -> Flow:
    """Exchange the two directions of each pair."""
    opposite: Flow = np.ascontiguousarray(flow.reshape(-1, 2, *flow.shape[1:])[:, ::-1]).reshape(flow.shape)
    return opposite


def _flow_scores(flow: Tensor, truth: _Truth, warped: Tensor) -> dict[str, float]:
    true_flow = torch.from_numpy(truth.flow)
    known = torch.isfinite(true_flow).all(dim=1)
    true_flow = torch.where(known[:, None], true_flow, 0)
    hidden = torch.zeros_like(known) if truth.hidden is None else torch.from_numpy(truth.hidden)
    far = ((flow - true_flow).square().sum(dim=1).sqrt() > _FAR) | hidden
    counted = warped & known
    return {
        "end-point error": mean(flow_endpoint_error(flow, true_flow, valid=known).tolist()),
        "end-point error, visible": mean(flow_endpoint_error(flow, true_flow, valid=known & ~hidden).tolist()),
        "warped from afar": float((far & counted).sum() / counted.sum()),
    }


def _mask_scores(occluded: Tensor, warped: Tensor, truth: _Truth) -> dict[str, float]:
    """Compare the occlusion mask with the hidden pixels, and the warp mask with the visible ones."""
    if truth.hidden is None:
        return {}
    hidden = torch.from_numpy(truth.hidden)
    precision, recall = mask_precision_recall(occluded, hidden)
    mask_precision, mask_recall = mask_precision_recall(warped, ~hidden)
    return {
        "occlusion precision": precision,
        "occlusion recall": recall,
        "mask precision": mask_precision,
        "mask recall": mask_recall,
    }


COMPARISON = FlowComparison()
