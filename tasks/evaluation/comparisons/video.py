"""The comparison of whole edited videos: keyframes are edited, every frame is propagated, and every frame is measured.

A row is a name and the settings that it changes, such as {"inversion.noise_point": "previous"}; see `VideoSettings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.cancel import raise_if_stopped
from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import EvaluationClip, split_shots
from tasks.evaluation.clips.scene_clips import scene_clips
from tasks.evaluation.comparisons.comparison import Measure, Method, Outcome, Resources
from tasks.evaluation.comparisons.keyframes import Cost, Inversion, KeyframeContext, Warping, measure_cost
from tasks.evaluation.comparisons.motion import Flows, estimated_flows
from tasks.evaluation.comparisons.propagation_baselines import BASELINES, warm_up
from tasks.evaluation.comparisons.reference_rows import EDITED, REFERENCE_ROWS, reference_methods
from tasks.evaluation.comparisons.video_metrics import VIDEO_MEASURES, VideoScorer
from tasks.models.flow_estimators import load_flow
from tasks.planning.method import KeyframeFlowSettings, MethodChoices, Preset, resolve_method
from wave_ops.change_mask import change_mask, paste_edit, prompt_difference
from wave_ops.diffusion import StableDiffusion, decode_latents
from wave_ops.edges import canny_edges
from wave_ops.editing import EditingSettings, edit
from wave_ops.inversion import InversionSettings
from wave_ops.keyframes import keyframe_intervals
from wave_ops.masks import WarpMaskSettings
from wave_ops.propagation import KeyframeInterval, PropagationSettings, propagate_interval
from wave_ops.resize import resize_frames
from wave_ops.schedule import WarpSchedule
from wave_ops.warp import resize_flow

__all__ = ["COMPARISON", "VideoComparison", "VideoSettings", "changed"]

Frames = NDArray[np.uint8]

STEPS: Final = 50
QUICK_STEPS: Final = 20
KEYFRAME_INTERVAL: Final = 8
_FRAMES: Final = 25
_QUICK_FRAMES: Final = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSettings:
    """Everything that the edit of a whole video is run with; the default is the product's."""

    keyframe_interval: int = KEYFRAME_INTERVAL
    """Frames from keyframe to keyframe; 1 edits every frame, and propagates nothing."""
    schedule: WarpSchedule = field(default_factory=WarpSchedule)
    """Of inversion and edit alike."""
    warp: bool = True
    """Whether features are warped, in inversion and edit."""
    controlnet: bool = False
    preset: Preset = "default"
    """What the other settings are taken from where a row does not change them."""
    negative_prompt: str = ""
    flow: KeyframeFlowSettings = field(default_factory=KeyframeFlowSettings)
    mask: WarpMaskSettings = field(default_factory=WarpMaskSettings)
    inversion: InversionSettings = field(default_factory=InversionSettings)
    editing: EditingSettings = field(default_factory=EditingSettings)
    propagation: PropagationSettings = field(default_factory=PropagationSettings)
    propagated_by: str = "patch synthesis"
    """Or by one of `BASELINES`."""

    def joined(self) -> VideoSettings:
        """Return the settings with one schedule in inversion and edit."""
        return replace(
            self,
            inversion=replace(self.inversion, schedule=self.schedule),
            editing=replace(self.editing, schedule=self.schedule),
        )


def changed(settings: Any, changes: Mapping[str, Any]) -> Any:
    """Return frozen settings with the values at the given places changed.

    Args:
        settings: a dataclass, of which fields may be dataclasses.
        changes: values by place, such as "inversion.noise_point"; lists become tuples.

    Raises:
        TaskInputError: if there is no such place.
        WaveOpsError: if the settings refuse a value.
    """
    for place, value in changes.items():
        name, _, rest = place.partition(".")
        known = [item.name for item in fields(settings)]
        if name not in known or (rest and not is_dataclass(getattr(settings, name))):
            raise TaskInputError(f"Unknown setting {place!r}; choose from {', '.join(known)}.")
        inner = changed(getattr(settings, name), {rest: value}) if rest else value
        settings = replace(settings, **{name: tuple(inner) if isinstance(inner, list) else inner})
    return settings


ROWS: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": {},
    "20 steps": {"schedule.steps": 20},
    "50 steps": {"schedule.steps": 50},
    "nothing kept": {"editing.keep": False},
    "mask grown by a cell": {"editing.keep_grow": 1},
    "smaller mask": {"editing.keep_threshold": 0.9},
    "larger mask": {"editing.keep_threshold": 0.65},
    "nothing pasted": {"editing.paste": False},
    "direct keyframe flow": {"flow.keyframes": "direct"},
    "contrast-preserving blend": {"propagation.blend": "contrast"},
    "contrast-preserving blend, fused": {"propagation.blend": "contrast", "propagation.fuse_gradients": True},
    "all four as before": {
        "editing.keep": False,
        "flow.keyframes": "direct",
        "propagation.blend": "contrast",
        "propagation.fuse_gradients": True,
        "inversion.extrapolation_limit": 1e9,
    },
    "paper, end to end": {"preset": "paper"},
    "published window and noise point": {"schedule.window": "published", "inversion.noise_point": "previous"},
    "no warp": {"warp": False},
    "no injection": {"editing.injection_fraction": 0.0},
    "keyframes every 4": {"keyframe_interval": 4},
    "each frame alone": {
        "keyframe_interval": 1,
        "warp": False,
        "editing.extended_attention": False,
        "editing.keep": False,
    },
    "colour map": {"propagated_by": "colour map"},
    "flow warp": {"propagated_by": "flow warp"},
    "ControlNet": {"controlnet": True},
}
"""Changes of `VideoSettings` by the names of the rows; the first is the baseline."""
_QUICK_ROWS: Final = ("default", "all four as before", "each frame alone", "colour map")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoComparison:
    """Rows of settings on the same clips; rows with the same inversion or keyframes share them."""

    name: str = "video"
    title: str = "How good is a whole edited video, frame by frame, and which settings make it better?"
    version: int = 1
    baseline: str = "default"
    measures: tuple[Measure, ...] = VIDEO_MEASURES
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: ROWS)
    quick_rows: tuple[str, ...] = _QUICK_ROWS

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """List the rows, then the reference rows; a quick run takes fewer steps, and `quick_rows` if none is named."""
        steps = {"schedule.steps": QUICK_STEPS if quick else STEPS}
        rows = {name: {**steps, **row} for name, row in self.rows.items()}
        repeated = {name for name, row in rows.items() if name != self.baseline and row == rows[self.baseline]}
        methods = tuple(
            Method(name=name, factors={"settings": row, "frames": EDITED})
            for name, row in rows.items()
            if name not in repeated  # "20 steps" in a quick run, "50 steps" in any other
        )
        return (*methods, *reference_methods(methods[0].factors))

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw scenes with one edit each: three intervals between keyframes, two in a quick run."""
        return scene_clips(count or (4 if quick else 20), seed=seed, frame_count=_QUICK_FRAMES if quick else _FRAMES)

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Edit the whole clip by every row, shot by shot, and measure each frame of its first edit."""
        warm_up()
        scorer = VideoScorer(clip, resources)
        shots = [_Shot(shot, resources) for shot in split_shots(clip)]
        for method in methods:
            yield method, _reference(scorer, method.name) if method.reference else _outcome(scorer, shots, method)


def _reference(scorer: VideoScorer, name: str) -> Outcome:
    if name != "source unchanged" and not scorer.has_truth:
        return Outcome(scores={})
    frames = REFERENCE_ROWS[name](scorer.source, scorer.reference)
    scores = scorer.scores(frames, keyframes=scorer.keyframes(KEYFRAME_INTERVAL))
    return Outcome(scores=scores, frames=frames, reference=scorer.reference)


def _outcome(scorer: VideoScorer, shots: Sequence[_Shot], method: Method) -> Outcome:
    base = _product_settings(shots[0], method.factors["settings"].get("preset", "default"))
    settings: VideoSettings = changed(base, method.factors["settings"]).joined()
    if settings.controlnet and shots[0].resources.controlnet is None:
        return Outcome(scores={})
    made = [shot.edit(settings) for shot in shots]
    frames = np.concatenate([found for found, _ in made])
    keyframes = scorer.keyframes(settings.keyframe_interval)
    costs = {
        "UNet calls": sum(cost.calls for _, cost in made) / len(made),
        "seconds": sum(cost.seconds for _, cost in made),
    }
    return Outcome(scores=scorer.scores(frames, keyframes=keyframes) | costs, frames=frames, reference=scorer.reference)


def _product_settings(shot: _Shot, preset: Preset) -> VideoSettings:
    """Return what `wave edit` runs with where nothing but a preset is asked for."""
    method = resolve_method(
        MethodChoices(preset=preset, source_prompt=shot.clip.caption, advice=shot.resources.model.advice)
    )
    return VideoSettings(
        schedule=method.inversion.schedule,
        controlnet=preset == "paper",
        negative_prompt=method.negative_prompt,
        flow=method.flow,
        mask=method.mask,
        inversion=method.inversion,
        editing=method.editing,
        propagation=method.propagation,
    )


class _Shot:
    """One shot with what its rows share: keyframes by interval, flows, inversions and edited keyframes."""

    def __init__(self, clip: EvaluationClip, resources: Resources) -> None:
        self.clip, self.resources = clip, resources
        self.context = lru_cache(maxsize=None)(self._context)
        self.flows = lru_cache(maxsize=None)(self._flows)
        self.keyframes = lru_cache(maxsize=2)(self._keyframes)

    def edit(self, settings: VideoSettings) -> tuple[Frames, Cost]:
        """Return every frame of the first edit, at the model's size, and the cost; shared work counts for each row."""
        editing = replace(settings, propagation=PropagationSettings(), propagated_by="")
        keyframes, cost = self.keyframes(editing)
        started = perf_counter()
        frames = self._propagated(settings, keyframes)
        return frames, replace(cost, seconds=cost.seconds + perf_counter() - started)

    def _context(self, interval: int) -> KeyframeContext:
        return KeyframeContext(self.clip, self.resources, interval=interval)

    def _flows(self) -> Flows:
        """Estimate flow between neighbouring frames at the source's size, and fit it to the model's."""
        found = estimated_flows(self.clip, load_flow(self.resources.flow, device=self.resources.device))
        size = self.context(1).size
        to_prev, to_cur = (resize_flow(torch.from_numpy(flow), size).numpy() for flow in (found.to_prev, found.to_cur))
        return Flows(to_prev=to_prev, to_cur=to_cur, valid=found.valid)

    def _keyframes(self, settings: VideoSettings) -> tuple[Frames, Cost]:
        """Invert and edit the keyframes."""
        context = self.context(settings.keyframe_interval)
        warping = _warping(settings) if settings.warp else None
        inverted: Inversion = context.invert(
            replace(settings.inversion, seed=settings.inversion.seed + context.shuffle_seed), warping
        )
        with context.model() as model, measure_cost(model, after=inverted.cost) as cost:
            mask = self._mask(model, settings, inverted) if settings.editing.keep else None
            latents = edit(
                model,
                inverted.latents.__getitem__,
                prompt=self.clip.edits[0].prompt,
                source_prompt=self.clip.caption,
                negative_prompt=settings.negative_prompt,
                orders=inverted.orders,
                warps=context.warps(warping),
                settings=settings.editing,
                edges=canny_edges(context.frames) if settings.controlnet else None,
                mask=mask,
            )
            frames = decode_latents(model, latents)
        if settings.editing.paste and mask is not None:
            frames = paste_edit(context.frames, frames, mask)
        return frames, cost

    def _mask(self, model: StableDiffusion, settings: VideoSettings, inverted: Inversion) -> Tensor:
        difference = prompt_difference(
            model,
            inverted.latents[0],
            source_prompt=self.clip.caption,
            prompt=self.clip.edits[0].prompt,
            steps=settings.schedule.steps,
            seed=settings.inversion.seed,
        )
        frames, editing = self.context(settings.keyframe_interval).frames, settings.editing
        return change_mask(difference, frames, threshold=editing.keep_threshold, grow=editing.keep_grow)

    def _propagated(self, settings: VideoSettings, edited: Frames) -> Frames:
        context = self.context(settings.keyframe_interval)
        sources = resize_frames(self.clip.frames, context.size)
        frames = sources.copy()
        frames[list(context.keyframes)] = edited
        for first, last in keyframe_intervals(context.keyframes):
            if last - first > 1:
                flows = self.flows()
                interval = KeyframeInterval(
                    frames=sources[first : last + 1],
                    first=frames[first],
                    last=frames[last],
                    to_prev=flows.to_prev[first:last],
                    to_cur=flows.to_cur[first:last],
                )
                frames[first + 1 : last] = _between(interval, settings)
        return frames


def _warping(settings: VideoSettings) -> Warping:
    mask = settings.mask
    return Warping(
        residual=mask.residual_threshold,
        occlusion="squared" if mask.squared else "plain",
        keyframes=settings.flow.keyframes,
        tolerance_at=mask.tolerance_at,
    )


def _between(interval: KeyframeInterval, settings: VideoSettings) -> Frames:
    raise_if_stopped()
    baseline = BASELINES.get(settings.propagated_by)
    if baseline is not None:
        return baseline(interval)
    frames: Frames = propagate_interval(
        interval.frames,
        first=interval.first,
        last=interval.last,
        flows_to_prev=interval.to_prev,
        flows_to_cur=interval.to_cur,
        settings=settings.propagation,
    )[1:-1]
    return frames


COMPARISON = VideoComparison()
