"""The comparison with other methods, on the same clips, model, steps and metrics: every frame is measured.

Ours edits keyframes and propagates them; one row edits every frame, and propagates nothing. The others edit every frame
of a shot together, as their papers do, from one plain inversion of all frames, on plug-and-play; see `wave_ops.peers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.evaluation.clips.clip import EvaluationClip, split_shots
from tasks.evaluation.clips.scene_clips import scene_clips
from tasks.evaluation.comparisons.comparison import Measure, Method, Outcome, Resources
from tasks.evaluation.comparisons.keyframes import Cost, KeyframeContext, measure_cost
from tasks.evaluation.comparisons.motion import estimated_flows
from tasks.evaluation.comparisons.reference_rows import EDITED, reference_methods
from tasks.evaluation.comparisons.video import VideoComparison
from tasks.evaluation.comparisons.video_metrics import VIDEO_MEASURES, VideoScorer
from tasks.models.flow_estimators import load_flow
from tasks.planning.method import Method as ResolvedMethod
from tasks.planning.method import MethodChoices, resolve_method
from wave_ops.diffusion import StableDiffusion, decode_latents
from wave_ops.peers import (
    AttentionMaps,
    CrossFrameAttention,
    FlowAttention,
    PeerMethod,
    SharedNoiseSettings,
    ShuffledGrids,
    TokenMerging,
    TokenPropagation,
    align_prompts,
    edit_with_shared_noise,
    invert_peer,
    sample_peer,
)

__all__ = ["COMPARISON", "PEERS", "PeersComparison"]

Frames = NDArray[np.uint8]

STEPS: Final = 20
QUICK_STEPS: Final = 10
_FRAMES: Final = 17
_QUICK_FRAMES: Final = 9

OURS: Final[Mapping[str, Mapping[str, Any]]] = {
    "WAVE": {},
    "WAVE, nothing kept": {"editing.keep": False},
    "WAVE, every frame": {"keyframe_interval": 1},
    "WAVE as published": {"preset": "paper"},
    "each frame alone": {
        "keyframe_interval": 1,
        "warp": False,
        "editing.extended_attention": False,
        "editing.keep": False,
    },
}
"""Changes of `VideoSettings` by the names of the rows; the first is the baseline."""
_NOT_QUICK: Final = ("WAVE as published",)


class _Shot:
    """One shot with what the compared methods share."""

    def __init__(self, clip: EvaluationClip, resources: Resources, *, steps: int) -> None:
        self.clip, self.resources, self.steps = clip, resources, steps
        self.context = KeyframeContext(clip, resources, interval=1)  # every frame is edited
        self.prompts = {"prompt": clip.edits[0].prompt, "source_prompt": clip.caption}

    @cached_property
    def method(self) -> ResolvedMethod:
        """The model's own guidance, injection and negative prompt."""
        return resolve_method(
            MethodChoices(steps=self.steps, source_prompt=self.clip.caption, advice=self.resources.model.advice)
        )

    @property
    def seed(self) -> int:
        """Seed of what a method draws; each clip draws its own."""
        return self.context.shuffle_seed

    def sampled(self, model: StableDiffusion, peer: PeerMethod, *, injection: bool = True) -> Tensor:
        """Denoise from the plain inversion that methods share."""
        return self._sample(model, self.context.invert(self.method.inversion, None).latents, peer, injection=injection)

    def sampled_from_own_inversion(self, model: StableDiffusion, peer: PeerMethod) -> Tensor:
        """Denoise from an inversion with the method applied."""
        inverted = invert_peer(
            model,
            self.context.encoded()[0],
            source_prompt=self.clip.caption,
            settings=self.method.inversion,
            method=peer,
        )
        return self._sample(model, inverted, peer, injection=True)

    def _sample(
        self, model: StableDiffusion, inverted: Sequence[Tensor], peer: PeerMethod, *, injection: bool
    ) -> Tensor:
        settings = self.method.editing
        if not injection:
            settings = replace(settings, injection_fraction=0.0, feature_injection_fraction=None)
        return sample_peer(
            model,
            inverted.__getitem__,
            negative_prompt=self.method.negative_prompt,
            settings=settings,
            method=peer,
            **self.prompts,
        )


def _flow_attention(shot: _Shot, model: StableDiffusion) -> Tensor:
    flows = estimated_flows(shot.clip, load_flow(shot.resources.flow, device=shot.resources.device))
    to_prev, valid = torch.from_numpy(flows.to_prev), torch.from_numpy(flows.valid)
    return shot.sampled_from_own_inversion(model, FlowAttention(flows_to_prev=to_prev, valid=valid))


def _attention_maps(shot: _Shot, model: StableDiffusion) -> Tensor:
    alignment = align_prompts(model, shot.clip.caption, shot.clip.edits[0].prompt)
    return shot.sampled(model, AttentionMaps(alignment=alignment, steps=shot.steps), injection=False)


def _shared_noise(shot: _Shot, model: StableDiffusion) -> Tensor:
    settings = SharedNoiseSettings(
        steps=shot.steps, guidance_scale=shot.method.editing.guidance_scale, seed=shot.seed % 2**31
    )
    return edit_with_shared_noise(
        model,
        shot.context.encoded()[0],
        negative_prompt=shot.method.negative_prompt,
        settings=settings,
        **shot.prompts,
    )


PEERS: Final[Mapping[str, Callable[[_Shot, StableDiffusion], Tensor]]] = {
    "TokenFlow": lambda shot, model: shot.sampled(model, TokenPropagation(seed=shot.seed)),
    "VidToMe": lambda shot, model: shot.sampled(model, TokenMerging(seed=shot.seed)),
    "RAVE": lambda shot, model: shot.sampled_from_own_inversion(model, ShuffledGrids(seed=shot.seed)),
    "FLATTEN": _flow_attention,
    "Text2Video-Zero": lambda shot, model: shot.sampled(model, CrossFrameAttention()),
    "Pix2Video": lambda shot, model: shot.sampled(model, CrossFrameAttention(previous=True)),
    "FateZero": _attention_maps,
    "FlowEdit": _shared_noise,
}
"""Each returns the edited latents of every frame of a shot."""
_INVERTS: Final = frozenset(PEERS) - {"RAVE", "FLATTEN", "FlowEdit"}
"""The methods that start from the plain inversion, the cost of which they share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersComparison:
    """Rows of ours, then of other methods, then the reference rows."""

    name: str = "peers"
    title: str = "How good are other methods on the same model and clips?"
    version: int = 1
    baseline: str = next(iter(OURS))
    measures: tuple[Measure, ...] = VIDEO_MEASURES
    video: VideoComparison = field(default_factory=VideoComparison)
    """Measures our rows."""

    def methods(self, *, quick: bool) -> tuple[Method, ...]:
        """List the rows; a quick run takes fewer steps, and leaves the published preset out."""
        steps = {"schedule.steps": QUICK_STEPS if quick else STEPS}
        ours = {name: row for name, row in OURS.items() if not (quick and name in _NOT_QUICK)}
        methods = (
            *(
                Method(name=name, factors={"peer": "", "settings": {**steps, **row}, "frames": EDITED})
                for name, row in ours.items()
            ),
            *(Method(name=name, factors={"peer": name, "settings": steps, "frames": EDITED}) for name in PEERS),
        )
        return (*methods, *reference_methods(methods[0].factors))

    def clips(self, *, quick: bool, count: int | None, seed: int) -> tuple[EvaluationClip, ...]:
        """Draw scenes with one edit each."""
        return scene_clips(count or (2 if quick else 8), seed=seed, frame_count=_QUICK_FRAMES if quick else _FRAMES)

    def measure(
        self, clip: EvaluationClip, methods: Sequence[Method], resources: Resources
    ) -> Iterator[tuple[Method, Outcome]]:
        """Edit the whole clip by every method, shot by shot, and measure each frame."""
        peers = [method for method in methods if method.factors["peer"]]
        others = [method for method in methods if method not in peers]
        yield from self.video.measure(clip, others, resources)
        scorer, shots = VideoScorer(clip, resources), dict[int, list[_Shot]]()
        for method in peers:
            steps = method.factors["settings"]["schedule.steps"]
            if steps not in shots:
                shots[steps] = [_Shot(shot, resources, steps=steps) for shot in split_shots(clip)]
            yield method, _outcome(scorer, shots[steps], method.factors["peer"])


def _outcome(scorer: VideoScorer, shots: Sequence[_Shot], peer: str) -> Outcome:
    made = [_edited(shot, peer) for shot in shots]
    frames = np.concatenate([found for found, _ in made])
    costs = {
        "UNet calls": sum(cost.calls for _, cost in made) / len(made),
        "seconds": sum(cost.seconds for _, cost in made),
    }
    scores = scorer.scores(frames, keyframes=range(len(frames)))  # every frame is edited, and none is in between
    return Outcome(scores=scores | costs, frames=frames, reference=scorer.reference)


def _edited(shot: _Shot, peer: str) -> tuple[Frames, Cost]:
    """Edit every frame of a shot; the inversion that methods share counts for each of them."""
    shared = shot.context.invert(shot.method.inversion, None).cost if peer in _INVERTS else None
    shot.context.encoded()
    with shot.context.model() as model, measure_cost(model, after=shared) as cost:
        frames = decode_latents(model, PEERS[peer](shot, model))
    return frames, cost


COMPARISON = PeersComparison()
