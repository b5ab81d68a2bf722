"""The comparison of ways to carry edited keyframes to the frames between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.clips.scene_clips import scene_clips
from tasks.evaluation.comparison import EvaluationClip, Measure, Method, Outcome, Resources
from tasks.evaluation.comparisons.motion import Flows, estimated_flows, known, mean, pair_errors, true_flows
from tasks.evaluation.comparisons.propagation_baselines import WAYS, warm_up
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
"""dB told where two frames are the same."""
_CARRIED_KINDS: Final = ("colour", "background colour")
"""Edits that keep every outline, so that what the source shows of motion holds for the true answer too."""


class PropagationComparison:
    """Ways of filling the frames between edited keyframes, against the true edited frames.

    On scenes the edit is drawn frame by frame. On other clips it is one that can be done frame by frame: red, green
    and blue change places.
    """

    name = "propagation"
    title = "How close do the frames between keyframes come to the true edit, and at what price?"
    version = 3
    baseline = "full"
    measures: tuple[Measure, ...] = (
        Measure(name="PSNR", unit="dB", better="higher"),
        Measure(name="SSIM", unit="", better="higher"),
        Measure(name="PSNR of what changes", unit="dB", better="higher"),
        Measure(name="gain over flow warp", unit="dB", better="higher", bar=2.0),
        Measure(name="warp error", unit="1e-3", better="lower"),
        Measure(name="warp error ratio", unit="", better="lower", bar=1.10),
        Measure(name="jump at keyframes", unit="", better="lower"),
        Measure(name="seconds", unit="s", better="lower"),
    )

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """Every way with the true keyframes, then with keyframes as rough as a model's VAE leaves them."""
        plain = [_method(way) for way in WAYS]
        full = [
            _method("full"),
            _method("full", selection="published"),
            _method("full", blend="published"),
            _method("full", fusion=False),
            _method("full", detail=False),
            _method("full", schedule="published"),
            _method("full", guides="published"),
        ]
        if quick:
            return (*full[:2], *plain)
        every = (*full, *plain)
        return (*every, _method("full", flow="true"), *(_rough(method) for method in every))

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw recoloured scenes with two intervals between keyframes."""
        side = 128 if quick else 256
        return scene_clips(
            count or (4 if quick else 16),
            seed=seed,
            frame_count=2 * _KEYFRAME_INTERVAL + 1,
            size=(side, side),
            kinds=_CARRIED_KINDS,
        )

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Carry each edit of a clip in every way; scores are means over the edits."""
        warm_up()
        case = _Case(clip, resources)
        for method in methods:
            known = method.factors["flow"] != "true" or clip.scene is not None
            yield method, case.outcome(method) if known else Outcome(scores={})


def _method(way: str, **factors: Any) -> Method:
    """A way of carrying; what does not concern it is None."""
    settled: dict[str, Any] = dict.fromkeys(("selection", "blend", "fusion", "detail", "schedule", "guides"))
    if way == "full":
        settled = {
            "selection": "symmetric",
            "blend": "error",
            "fusion": True,
            "detail": True,
            "schedule": "settling",
            "guides": "default",
        }
    named = {
        "selection": "{} selection",
        "blend": "{} blend",
        "fusion": "no fusion",
        "detail": "no detail",
        "schedule": "{} schedule",
        "guides": "{} guides",
        "flow": "{} flow",
    }
    name = ", ".join([way, *(named[key].format(value) for key, value in factors.items())])
    return Method(name=name, factors={"way": way, **settled, "keyframes": "true", "flow": "estimated", **factors})


def _rough(method: Method) -> Method:
    return Method(name=f"{method.name}, rough keyframes", factors={**method.factors, "keyframes": "round trip"})


class _Case:
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
        """Carry every edit and measure it."""
        carried = [self._carry(method.factors, edit) for edit in range(len(self.truths))]
        each = [self._scores(method.factors, edit, *made) for edit, made in enumerate(carried)]
        scores = {name: mean(found[name] for found in each) for name in each[0]}
        return Outcome(scores=known(scores), frames=carried[0][0], reference=self.truths[0])

    def _carry(self, factors: Mapping[str, Any], edit: int) -> tuple[Frames, float]:
        """All frames of one edit, the keyframes as they were given, and the seconds that it took."""
        frames, seconds = self.clip.frames.copy(), 0.0
        frames[list(self.keyframes)] = self.edited(edit, factors["keyframes"])
        for first, last in self.intervals:
            if last - first > 1:
                frames[first + 1 : last], spent = self._fill(factors, edit, (first, last))
                seconds += spent
        return frames, seconds

    def _fill(self, factors: Mapping[str, Any], edit: int, place: tuple[int, int]) -> tuple[Frames, float]:
        """The frames between two keyframes; the seconds count candidates that methods share for each of them."""
        given = self._interval(factors, edit, place)
        painted: tuple[Candidates, float] = ([], 0.0)
        if factors["way"] == "full":
            shared = tuple(factors[name] for name in ("keyframes", "flow", "detail", "schedule", "guides"))
            painted = self.painted(edit, shared, place)
        started = perf_counter()
        made = WAYS[factors["way"]](given) if factors["way"] in WAYS else self._fuse(factors, given, painted[0])
        return made, painted[1] + perf_counter() - started

    def _fuse(self, factors: Mapping[str, Any], given: KeyframeInterval, candidates: Candidates) -> Frames:
        default = PropagationSettings()
        settings = PropagationSettings(
            selection_weight=factors["selection"],
            blend_weight=factors["blend"],
            gradient_weights=default.gradient_weights if factors["fusion"] else (0.0, 0.0, 0.0),
        )
        made = fuse_candidates(candidates, flows_to_prev=given.to_prev, flows_to_cur=given.to_cur, settings=settings)
        return np.stack(list(made))

    def _interval(self, factors: Mapping[str, Any], edit: int, place: tuple[int, int]) -> KeyframeInterval:
        first, last = place
        flows, edited = self.flows(factors["flow"]), self.edited(edit, factors["keyframes"])
        return KeyframeInterval(
            frames=self.clip.frames[first : last + 1],
            first=edited[self.keyframes.index(first)],
            last=edited[self.keyframes.index(last)],
            to_prev=flows.to_prev[first:last],
            to_cur=flows.to_cur[first:last],
        )

    def _painted(
        self, edit: int, shared: tuple[str, str, bool, Schedule, str], place: tuple[int, int]
    ) -> tuple[Candidates, float]:
        keyframes, flow, detail, schedule, guides = shared
        weights = PUBLISHED_GUIDES if guides == "published" else PropagationSettings()
        given = self._interval({"keyframes": keyframes, "flow": flow}, edit, place)
        started = perf_counter()
        candidates = paint_candidates(
            given.frames,
            first=given.first,
            last=given.last,
            flows_to_prev=given.to_prev,
            flows_to_cur=given.to_cur,
            settings=replace(weights, seed=self.resources.seed, restore_detail=detail, schedule=schedule),
        )
        return candidates, perf_counter() - started

    def _flows(self, kind: str) -> Flows:
        if kind == "true" and self.clip.scene is not None:
            return true_flows(self.clip.scene)
        return estimated_flows(self.clip, load_flow(self.resources.flow, device=self.resources.device))

    def _edited(self, edit: int, kind: str) -> Frames:
        keyframes: Frames = self.truths[edit][list(self.keyframes)]
        return keyframes if kind == "true" else _round_trip(keyframes, self.resources)

    def _scores(self, factors: Mapping[str, Any], edit: int, frames: Frames, seconds: float) -> dict[str, float]:
        made, truth = frames[self.between], self.truths[edit][self.between]
        plain, _ = self._carry({**factors, "way": "flow warp", "flow": "estimated"}, edit)
        likeness = _psnr(made, truth)
        return {
            "PSNR": likeness,
            "SSIM": float(ssim(to_images(made), to_images(truth)).mean()),
            "PSNR of what changes": _psnr_where(made, truth, (truth != self.clip.frames[self.between]).any(axis=-1)),
            "gain over flow warp": likeness - _psnr(plain[self.between], truth),
            **self._unsteadiness(frames, self.truths[edit]),
            "seconds": seconds,
        }

    def _unsteadiness(self, frames: Frames, truth: Frames) -> dict[str, float]:
        """Warp errors by the true flow, or the estimated one where that is not known, beside those of the true edit."""
        flows = self.flows("true")
        errors, least = pair_errors(frames, flows), pair_errors(truth, flows)
        touching = np.array([{i, i + 1} & set(self.keyframes) != set() for i in range(len(errors))])
        at, away = (_ratio(errors[where], least[where]) for where in (touching, ~touching))
        return {
            "warp error": 1e3 * mean(errors),
            "warp error ratio": _ratio(errors, least),
            "jump at keyframes": at / away if away else np.nan,
        }


def _round_trip(keyframes: Frames, resources: Resources) -> Frames:
    """Keyframes as a model's VAE gives them back."""
    height, width = keyframes.shape[1:3]
    with loaded_model(resources.model, resources.controlnet, device=resources.device, dtype=resources.dtype) as model:
        size = fit_size((height, width), native_area=height * width, multiple=model.size_multiple)
        rebuilt = decode_latents(model, encode_frames(model, resize_frames(keyframes, size)))
    return resize_frames(rebuilt, (height, width))


def _psnr(made: Frames, truth: Frames) -> float:
    """Mean over frames, in dB."""
    return float(psnr(to_images(made), to_images(truth)).clamp(max=_MOST_PSNR).mean())


def _psnr_where(made: Frames, truth: Frames, where: NDArray[np.bool_]) -> float:
    """The same over some pixels of each frame, for the frames that have any."""
    squared = (np.square((made.astype(np.float64) - truth) / 255).mean(axis=-1) * where).sum(axis=(1, 2))
    counts = where.sum(axis=(1, 2))
    errors = squared[counts > 0] / counts[counts > 0]
    return mean(-10 * np.log10(np.maximum(errors, 10 ** (-_MOST_PSNR / 10))))


def _ratio(errors: NDArray[np.float64], least: NDArray[np.float64]) -> float:
    """How many times the least error; not a number where that is nothing."""
    floor = mean(least)
    return mean(errors) / floor if floor else float("nan")


COMPARISON = PropagationComparison()
