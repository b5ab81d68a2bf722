"""The comparison of methods to propagate edited keyframes to the frames between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.cancel import raise_if_stopped
from tasks.evaluation.clips.clip import EvaluationClip, split_shots
from tasks.evaluation.clips.scene_clips import EDIT_KINDS, UNIQUE_KINDS, scene_clips
from tasks.evaluation.comparisons.comparison import Measure, Method, Outcome, Resources
from tasks.evaluation.comparisons.editing import Recipe, edit_clip_keyframes
from tasks.evaluation.comparisons.keyframes import KeyframeContext
from tasks.evaluation.comparisons.motion import Flows, estimated_flows, finite_scores, mean, pair_errors, true_flows
from tasks.evaluation.comparisons.propagation_baselines import BASELINES, warm_up
from tasks.evaluation.comparisons.reference_rows import EDITED, REFERENCE_ROWS, reference_methods
from tasks.models.flow_estimators import load_flow
from tasks.models.loading import loaded_model
from wave_ops.diffusion import decode_latents, encode_frames
from wave_ops.keyframes import keyframe_indices, keyframe_intervals
from wave_ops.metrics import psnr, ssim
from wave_ops.propagation import (
    PUBLISHED_GUIDES,
    Candidate,
    KeyframeInterval,
    PropagationSettings,
    fuse_candidates,
    paint_candidates,
)
from wave_ops.propagation.settings import Schedule
from wave_ops.resize import fit_size, resize_frames, to_images

__all__ = ["COMPARISON", "PropagationComparison"]

Frames = NDArray[np.uint8]
Candidates = list[tuple[Candidate, Candidate]]

_KEYFRAME_INTERVAL: Final = 8
_MOST_PSNR: Final = 100.0
"""dB of two identical frames."""
_EDITING_STEPS: Final = 20
"""Of the edits of keyframes: as good as 50 on the embedded model."""
_KEYFRAMES: Final[Mapping[str, str]] = {
    "round trip": ", rough keyframes",
    "edited": ", edited keyframes",
    "true": "",
}
"""Where keyframes come from, and the ends of the methods' names: from the true edit through the model's VAE, from the
model's edit, or from the true edit itself. No edit has true keyframes, so they come last."""


class PropagationComparison:
    """Methods to fill the frames between edited keyframes, against the true edited frames.

    On scenes the true edit is drawn. On other clips the edit is a permutation of red, green and blue, which can be
    applied to every frame. Methods are compared with the full one with the same keyframes.
    """

    name = "propagation"
    title = "How close do the frames between keyframes come to the true edit, and at what cost?"
    version = 4
    baseline = "full, rough keyframes"
    measures: tuple[Measure, ...] = (
        Measure(name="PSNR", unit="dB", better="higher"),
        *(Measure(name=f"PSNR, {kind}", unit="dB", better="higher") for kind in EDIT_KINDS),
        Measure(name="SSIM", unit="", better="higher"),
        Measure(name="PSNR of what changes", unit="dB", better="higher"),
        Measure(name="gain over flow warp", unit="dB", better="higher", target=2.0),
        Measure(name="warp error", unit="1e-3", better="lower", average="median"),
        Measure(name="warp error ratio", unit="", better="lower", target=1.10),
        Measure(name="jump at keyframes", unit="", better="lower"),
        Measure(name="seconds", unit="s", better="lower"),
    )

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """List every method with rough keyframes, with edited and with true ones, then the reference rows."""
        baselines = [_method(name) for name in BASELINES]
        full = [
            _method("full"),
            _method("full", selection="published"),
            _method("full", blend="published"),
            _method("full", fusion=True),
            _method("full", detail=False),
            _method("full", schedule="published"),
            _method("full", guides="published"),
        ]
        if quick:
            few = (full[0], *baselines)
            made = [*(_with_keyframes(item, "round trip") for item in (*full[:2], *baselines))]
            made += [_with_keyframes(item, kind) for kind in ("edited", "true") for item in few]
        else:
            made = [_with_keyframes(item, kind) for kind in _KEYFRAMES for item in (*full, *baselines)]
            made.append(_method("full", flow="true"))
        return (*made, *reference_methods(made[0].factors))

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw scenes of every kind of edit, with two intervals between keyframes."""
        side = 128 if quick else 256
        return scene_clips(
            count or (4 if quick else 16),
            seed=seed,
            frame_count=2 * _KEYFRAME_INTERVAL + 1,
            size=(side, side),
        )

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Propagate each edit of a clip by every method; scores are means over the edits."""
        warm_up()
        context = ClipContext(clip, resources)
        for method in methods:
            needs_scene = method.factors["flow"] == "true" or method.factors["keyframes"] == "edited"
            is_possible = clip.scene is not None or not needs_scene
            yield method, context.outcome(method) if is_possible else Outcome(scores={})


def _method(kind: str, **factors: Any) -> Method:
    """Build a method: the full one or a baseline, with changed factors; those that do not apply are None."""
    defaults: dict[str, Any] = dict.fromkeys(("selection", "blend", "fusion", "detail", "schedule", "guides"))
    if kind == "full":
        defaults = {
            "selection": "symmetric",
            "blend": "error",
            "fusion": PropagationSettings().fuse_gradients,
            "detail": True,
            "schedule": "settling",
            "guides": "default",
        }
    names = {
        "selection": "{} selection",
        "blend": "{} blend",
        "fusion": "gradient fusion",
        "detail": "no detail",
        "schedule": "{} schedule",
        "guides": "{} guides",
        "flow": "{} flow",
    }
    name = ", ".join([kind, *(names[key].format(value) for key, value in factors.items())])
    # The key "way" is part of the digests of stored outcomes
    made = {"way": kind, **defaults, "keyframes": "true", "flow": "estimated", "frames": EDITED, **factors}
    return Method(name=name, factors=made, baseline="full")


def _with_keyframes(method: Method, kind: str) -> Method:
    ending = _KEYFRAMES[kind]
    return Method(name=method.name + ending, factors={**method.factors, "keyframes": kind}, baseline=f"full{ending}")


class ClipContext:
    """One clip with what its methods share: flows, keyframes, and the candidates that patch synthesis paints."""

    def __init__(self, clip: EvaluationClip, resources: Resources) -> None:
        self.clip, self.resources = clip, resources
        self.keyframes = keyframe_indices(len(clip.frames), _KEYFRAME_INTERVAL, cuts=clip.cuts)
        self.intervals = keyframe_intervals(self.keyframes, cuts=clip.cuts)
        self.between = [i for i in range(len(clip.frames)) if i not in self.keyframes]
        drawn = [edit.truth.frames for edit in clip.edits if edit.truth is not None]
        self.truths = drawn or [np.ascontiguousarray(clip.frames[..., [1, 2, 0]])]
        self.flows = lru_cache(None)(self._flows)
        self.edited = lru_cache(None)(self._edited)
        self.painted = lru_cache(None)(self._painted)

    def outcome(self, method: Method) -> Outcome:
        """Propagate every edit, or make the frames of a reference row, and measure them."""
        if method.reference:
            made = [(REFERENCE_ROWS[method.name](self.clip.frames, truth), np.nan) for truth in self.truths]
            return self._measured(method, made)
        propagated = [self._propagate(method.factors, edit) for edit in range(len(self.truths))]
        return self._measured(method, propagated)

    def _measured(self, method: Method, propagated: Sequence[tuple[Frames, float]]) -> Outcome:
        each = [self._scores(method.factors, edit, *result) for edit, result in enumerate(propagated)]
        scores = {name: mean(found[name] for found in each if name in found) for found in each for name in found}
        return Outcome(scores=finite_scores(scores), frames=propagated[0][0], reference=self.truths[0])

    def _propagate(self, factors: Mapping[str, Any], edit: int) -> tuple[Frames, float]:
        """Return all frames of one edit, the given keyframes among them, and the seconds that propagation took."""
        frames, seconds = self.clip.frames.copy(), 0.0
        frames[list(self.keyframes)] = self.edited(edit, factors["keyframes"])
        for first, last in self.intervals:
            if last - first > 1:
                frames[first + 1 : last], spent = self._fill(factors, edit, (first, last))
                seconds += spent
        return frames, seconds

    def _fill(self, factors: Mapping[str, Any], edit: int, ends: tuple[int, int]) -> tuple[Frames, float]:
        """Return the frames between two keyframes, and seconds; shared candidates count for each method."""
        interval = self._interval(factors, edit, ends)
        painted: tuple[Candidates, float] = ([], 0.0)
        if factors["way"] == "full":
            shared = tuple(factors[name] for name in ("keyframes", "flow", "detail", "schedule", "guides"))
            painted = self.painted(edit, shared, ends)
        started = perf_counter()
        baseline = BASELINES.get(factors["way"])
        frames = self._fuse(factors, interval, painted[0]) if baseline is None else baseline(interval)
        return frames, painted[1] + perf_counter() - started

    def _fuse(self, factors: Mapping[str, Any], interval: KeyframeInterval, candidates: Candidates) -> Frames:
        settings = PropagationSettings(
            selection_weight=factors["selection"],
            blend_weight=factors["blend"],
            fuse_gradients=bool(factors["fusion"]),
        )
        fused = fuse_candidates(
            candidates, flows_to_prev=interval.to_prev, flows_to_cur=interval.to_cur, settings=settings
        )
        return np.stack(list(fused))

    def _interval(self, factors: Mapping[str, Any], edit: int, ends: tuple[int, int]) -> KeyframeInterval:
        raise_if_stopped()
        first, last = ends
        flows, edited = self.flows(factors["flow"]), self.edited(edit, factors["keyframes"])
        return KeyframeInterval(
            frames=self.clip.frames[first : last + 1],
            first=edited[self.keyframes.index(first)],
            last=edited[self.keyframes.index(last)],
            to_prev=flows.to_prev[first:last],
            to_cur=flows.to_cur[first:last],
        )

    def _painted(
        self, edit: int, shared: tuple[str, str, bool, Schedule, str], ends: tuple[int, int]
    ) -> tuple[Candidates, float]:
        keyframes, flow, detail, schedule, guides = shared
        weights = PUBLISHED_GUIDES if guides == "published" else PropagationSettings()
        interval = self._interval({"keyframes": keyframes, "flow": flow}, edit, ends)
        started = perf_counter()
        candidates = paint_candidates(
            interval.frames,
            first=interval.first,
            last=interval.last,
            flows_to_prev=interval.to_prev,
            flows_to_cur=interval.to_cur,
            settings=replace(weights, seed=self.resources.seed, restore_detail=detail, schedule=schedule),
        )
        return candidates, perf_counter() - started

    def _flows(self, kind: str) -> Flows:
        if kind == "true" and self.clip.scene is not None:
            return true_flows(self.clip.scene)
        return estimated_flows(self.clip, load_flow(self.resources.flow, device=self.resources.device))

    def _edited(self, edit: int, kind: str) -> Frames:
        keyframes: Frames = self.truths[edit][list(self.keyframes)]
        if kind == "edited":
            shots = [
                KeyframeContext(shot, self.resources, interval=_KEYFRAME_INTERVAL) for shot in split_shots(self.clip)
            ]
            recipe, size = Recipe(steps=_EDITING_STEPS), (keyframes.shape[1], keyframes.shape[2])
            made = [edit_clip_keyframes(shot, recipe, index=edit)[0] for shot in shots]
            return resize_frames(np.concatenate(made), size)
        return keyframes if kind == "true" else _round_trip(keyframes, self.resources)

    def _scores(self, factors: Mapping[str, Any], edit: int, frames: Frames, seconds: float) -> dict[str, float]:
        errors = {**self._warp_errors(frames, self.truths[edit]), "seconds": seconds}
        kind = self.clip.edits[edit].kind if self.clip.scene is not None else ""
        if factors["keyframes"] == "edited" and kind not in UNIQUE_KINDS:
            return errors  # what a model makes of the edit is not what was drawn
        result, truth = frames[self.between], self.truths[edit][self.between]
        quality = _psnr(result, truth)
        if factors["frames"] == EDITED:
            warped, _ = self._propagate({**factors, "way": "flow warp", "flow": "estimated"}, edit)
            errors["gain over flow warp"] = quality - _psnr(warped[self.between], truth)
        if kind:
            errors[f"PSNR, {kind}"] = quality
        return {
            "PSNR": quality,
            "SSIM": float(ssim(to_images(result), to_images(truth)).mean()),
            "PSNR of what changes": _psnr_where(result, truth, (truth != self.clip.frames[self.between]).any(axis=-1)),
            **errors,
        }

    def _warp_errors(self, frames: Frames, truth: Frames) -> dict[str, float]:
        """Compare warp errors along the true flow, or the estimated one on real clips, with those of the true edit."""
        flows = self.flows("true")
        errors, true_errors = pair_errors(frames, flows), pair_errors(truth, flows)
        touching = np.array([{i, i + 1} & set(self.keyframes) != set() for i in range(len(errors))])
        at, away = (_ratio(errors[where], true_errors[where]) for where in (touching, ~touching))
        return {
            "warp error": 1e3 * mean(errors),
            "warp error ratio": _ratio(errors, true_errors),
            "jump at keyframes": at / away if away else np.nan,
        }


def _round_trip(keyframes: Frames, resources: Resources) -> Frames:
    """Encode and decode keyframes with the model's VAE, at a size that it takes."""
    height, width = keyframes.shape[1:3]
    with loaded_model(resources.model, resources.controlnet, device=resources.device, dtype=resources.dtype) as model:
        size = fit_size((height, width), native_area=height * width, multiple=model.size_multiple)
        rebuilt = decode_latents(model, encode_frames(model, resize_frames(keyframes, size)))
    return resize_frames(rebuilt, (height, width))


def _psnr(frames: Frames, truth: Frames) -> float:
    """Compute the mean PSNR over frames, in dB."""
    return float(psnr(to_images(frames), to_images(truth)).clamp(max=_MOST_PSNR).mean())


def _psnr_where(frames: Frames, truth: Frames, where: NDArray[np.bool_]) -> float:
    """Compute the mean PSNR over the chosen pixels of each frame that has any, in dB."""
    squared = (np.square((frames.astype(np.float64) - truth) / 255).mean(axis=-1) * where).sum(axis=(1, 2))
    counts = where.sum(axis=(1, 2))
    errors = squared[counts > 0] / counts[counts > 0]
    return mean(-10 * np.log10(np.maximum(errors, 10 ** (-_MOST_PSNR / 10))))


def _ratio(errors: NDArray[np.float64], true_errors: NDArray[np.float64]) -> float:
    """Divide the mean error by that of the true edit; NaN if that is 0."""
    floor = mean(true_errors)
    return mean(errors) / floor if floor else float("nan")


COMPARISON = PropagationComparison()
