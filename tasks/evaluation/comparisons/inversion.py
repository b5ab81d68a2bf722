"""The comparison of inversion methods: how well sampling from the inverted latents reconstructs the frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.evaluation.clips.clip import EvaluationClip, split_shots
from tasks.evaluation.clips.scene_clips import scene_clips
from tasks.evaluation.comparisons.comparison import Measure, Method, Outcome, Resources
from tasks.evaluation.comparisons.keyframes import Cost, KeyframeContext, Warping, mean_psnr
from tasks.evaluation.comparisons.motion import mean
from wave_ops.inversion import InversionSettings, NoisePoint
from wave_ops.metrics import ssim
from wave_ops.resize import to_images
from wave_ops.schedule import WarpSchedule, WarpWindow
from wave_ops.shuffle import ShuffleMode

__all__ = ["COMPARISON", "InversionComparison"]

Warp = Literal["plain", ShuffleMode]

_WARPINGS: Final[tuple[tuple[Warp, WarpWindow | None, str | None], ...]] = (
    *((warp, window, "both ways") for warp in get_args(ShuffleMode) for window in get_args(WarpWindow)),
    ("plain", None, None),
)
"""How orders are drawn, which steps are warped, and in which directions."""
_SAMPLING_ONLY: Final = ("group", "aligned", "sampling")
"""The damage of the warps alone: one extra method outside the grid."""
_POINTS: Final[tuple[tuple[NoisePoint, int], ...]] = (
    ("extrapolated", 0),
    ("previous", 0),
    ("previous", 1),
    ("previous", 2),
)
"""Where a step predicts its noise, and how often it is refined."""
_STEPS: Final = (50, 20, 10)
_QUICK_STEPS: Final = 20


class InversionComparison:
    """Plain and warped inversion, in each window, with and without refinement, in many and few steps."""

    name = "inversion"
    title = "Which inversion reconstructs the frames best, and what does it cost?"
    version = 3
    baseline = "group"
    measures: tuple[Measure, ...] = (
        Measure(name="PSNR", unit="dB", better="higher"),
        Measure(name="SSIM", unit="", better="higher"),
        Measure(name="PSNR to round trip", unit="dB", better="higher"),
        Measure(name="loss to round trip", unit="dB", better="lower"),
        Measure(name="latent error", unit="", better="lower"),
        Measure(name="UNet calls", unit="", better="lower"),
        Measure(name="seconds", unit="s", better="lower"),
    )

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """List the grid; a quick run takes few steps and no refinement. Names list the differences from the baseline.

        Only the published point is refined: at the extrapolated one refinement gains little.
        """
        all_steps, points = ((_QUICK_STEPS,), _POINTS[:2]) if quick else (_STEPS, _POINTS)
        grid = [(warping, point, steps) for steps in all_steps for point in points for warping in _WARPINGS]
        rows = [*grid, (_SAMPLING_ONLY, points[0], all_steps[0])]
        return tuple(
            _method(*warping, *point, steps=steps, default_steps=all_steps[0]) for warping, point, steps in rows
        )

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw scenes; their edits are not used."""
        return scene_clips(count or (4 if quick else 20), seed=seed)

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Invert the clip's keyframes and reconstruct them, with the caption of each shot at guidance 1."""
        shuffles = [warp for method in methods if (warp := method.factors["warp"]) != "plain"]
        shots = [KeyframeContext(shot, resources, shuffles=shuffles) for shot in split_shots(clip)]
        for method in methods:
            yield method, _outcome(shots, method)


def _method(
    warp: Warp,
    window: WarpWindow | None,
    warped: str | None,
    noise_point: NoisePoint,
    refinements: int,
    *,
    steps: int,
    default_steps: int,
) -> Method:
    words: list[str] = [warp, *(["published"] if window == "published" else [])]
    if warped == "sampling":
        words.append("sampling only")
    if noise_point == "previous":
        words.append("previous point")
    if refinements:
        words.append(f"{refinements} refinement{'s' if refinements > 1 else ''}")
    if steps != default_steps:
        words.append(f"{steps} steps")
    factors = {
        "warp": warp,
        "window": window,
        "warped": warped,
        "noise_point": noise_point,
        "refinements": refinements,
        "steps": steps,
    }
    return Method(name=", ".join(words), factors=factors)


def _outcome(shots: Sequence[KeyframeContext], method: Method) -> Outcome:
    parts = [_reconstructed(context, method) for context in shots]
    latents, encoded = (torch.cat([getattr(part, name) for part in parts]) for name in ("latents", "encoded"))
    frames, round_trip = (np.concatenate([getattr(part, name) for part in parts]) for name in ("frames", "round_trip"))
    source = np.concatenate([context.frames for context in shots])
    reconstruction = mean_psnr(frames, source)
    scores = {
        "PSNR": reconstruction,
        "SSIM": float(ssim(to_images(frames), to_images(source)).mean()),
        "PSNR to round trip": mean_psnr(frames, round_trip),
        "loss to round trip": mean_psnr(round_trip, source) - reconstruction,
        "latent error": float((latents - encoded).square().mean().sqrt()),
        "UNet calls": mean(part.cost.calls for part in parts),
        "seconds": sum(part.cost.seconds for part in parts),
    }
    return Outcome(scores=scores, frames=frames, reference=source)


class _Reconstruction(NamedTuple):
    """The keyframes of a shot, reconstructed and after a round trip through the VAE alone; x_0 and frames of both."""

    latents: Tensor
    encoded: Tensor
    frames: NDArray[np.uint8]
    round_trip: NDArray[np.uint8]
    cost: Cost


def _reconstructed(context: KeyframeContext, method: Method) -> _Reconstruction:
    factors = method.factors
    settings = InversionSettings(
        schedule=WarpSchedule(steps=factors["steps"], window=factors["window"] or "aligned"),
        seed=context.shuffle_seed,
        shuffle="group" if factors["warp"] == "plain" else factors["warp"],
        noise_point=factors["noise_point"],
        refinements=factors["refinements"],
    )
    latents, frames, cost = context.reconstruct(
        settings,
        inversion=Warping() if factors["warped"] == "both ways" else None,
        sampling=Warping() if factors["warped"] else None,
    )
    encoded, round_trip = context.encoded()
    return _Reconstruction(latents, encoded, frames, round_trip, cost)


COMPARISON = InversionComparison()
