"""What will be computed for a request, and the identity of every result, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from storage.digest import digest_of
from storage.reference import ArtifactRef
from tasks.errors import TaskInputError
from tasks.models.checkpoints import ModelIdentity, NetworkIdentity
from tasks.models.devices import Backend
from tasks.models.flow_estimators import FlowIdentity
from tasks.planning.request import EditRequest
from wave_ops.editing import NEGATIVE_PROMPT, EditingSettings
from wave_ops.inversion import InversionSettings
from wave_ops.keyframes import keyframe_indices, keyframe_intervals
from wave_ops.propagation import PropagationSettings
from wave_ops.resize import analysis_size, fit_size
from wave_ops.shuffle import reachable_pairs

T = TypeVar("T")

__all__ = ["ClipFacts", "EditPlan", "Execution", "ResolvedInputs", "Stage", "plan_edit"]

VERSIONS: Mapping[str, int] = {
    "decode": 1,
    "keyframe_flow": 1,
    "frame_flow": 1,
    "invert": 1,
    "edit": 1,
    "propagate": 2,
    "encode": 1,
    "assess": 1,
}
"""Versions of the stages' algorithms: raise one where its results change, and they are computed anew."""
_PLACES = {
    "decode": "source",
    "keyframe_flow": "keyframe_flow/{digest}",
    "frame_flow": "frame_flow/{digest}",
    "invert": "inversion/{digest}",
    "edit": "keyframes/{digest}",
    "propagate": "edits/{digest}/frames",
    "encode": "edits/{above}/video",
    "assess": "edits/{above}/report",
}
"""Where a result lies in its clip's folder; the last three lie together, under the digest of the propagation,
and what was made at full resolution beside what was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Where a plan is carried out. Of these only `dtype` and `propagation` change a result."""

    workspace: str
    device: str = "cpu"
    dtype: str = "float32"
    keyframe_batch: int | None = None
    """Keyframes in one UNet batch; None for all."""
    propagation: Backend = "numba"
    """What propagates: compiled loops, or torch on a CUDA device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """What is known of a source clip; before decoding, its cuts are not."""

    name: str
    digest: str
    frame_count: int
    size: tuple[int, int]
    """Height and width, pixels."""
    cuts: tuple[int, ...] | None = None
    """First frame of each shot after the first; None where not yet known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedInputs:
    """All that a plan is made of."""

    request: EditRequest
    clip: ClipFacts
    model: ModelIdentity
    controlnet: NetworkIdentity | None
    flow: FlowIdentity
    execution: Execution


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One result to be: its place and identity, and the settings that change its value."""

    name: str
    title: str
    """What a person reads while it runs."""
    ref: ArtifactRef
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditPlan:
    """The stages of one edit, with everything their tasks need to know."""

    inputs: ResolvedInputs
    size: tuple[int, int]
    """The working size (height, width)."""
    keyframes: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    """Keyframe slots whose flow is needed."""
    intervals: tuple[tuple[int, int], ...]
    decode: Stage
    keyframe_flow: Stage
    frame_flow: Stage
    invert: Stage
    edit: Stage
    propagate: Stage
    encode: Stage
    assess: Stage

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in the order in which they run."""
        return tuple(getattr(self, name) for name in VERSIONS)

    @property
    def execution(self) -> Execution:
        """Where the plan is carried out."""
        return self.inputs.execution

    @property
    def clip(self) -> ClipFacts:
        """The source clip."""
        return self.inputs.clip


def plan_edit(inputs: ResolvedInputs) -> EditPlan:
    """Plan an edit.

    Only what changes a result's value enters its digest, so a second prompt on a clip shares the decoded
    frames, the flows and the inversion with the first.

    Raises:
        TaskInputError: if the working size does not fit the model.
    """
    clip, size = inputs.clip, _working_size(inputs)
    cuts = clip.cuts or ()
    keyframes = keyframe_indices(clip.frame_count, inputs.request.keyframe_interval, cuts=cuts)
    pairs = reachable_pairs(len(keyframes))
    return EditPlan(
        inputs=inputs,
        size=size,
        keyframes=keyframes,
        pairs=pairs,
        intervals=keyframe_intervals(keyframes, cuts=cuts),
        **_stages(inputs, size, keyframes=len(keyframes), pairs=len(pairs)),
    )


def _working_size(inputs: ResolvedInputs) -> tuple[int, int]:
    model, size = inputs.model, inputs.request.size
    multiple = model.size_multiple
    if size is None:
        return fit_size(inputs.clip.size, native_area=model.native_area, multiple=multiple)
    if any(side % multiple for side in size):
        height, width = (max(1, round(side / multiple)) * multiple for side in size)
        raise TaskInputError(
            f"The size {size[1]}x{size[0]} does not fit the model {model.name!r}: "
            f"width and height must be multiples of {multiple}, for example {width}x{height}."
        )
    return size


def _stages(parts: ResolvedInputs, size: tuple[int, int], *, keyframes: int, pairs: int) -> dict[str, Stage]:
    request, name = parts.request, parts.clip.name
    frames = f"{keyframes} keyframe{'s' if keyframes > 1 else ''} of {name}"
    flow = {"estimator": parts.flow.name, "weights": parts.flow.digest, "size": analysis_size(parts.clip.size)}
    by_interval = {**flow, "keyframe_interval": request.keyframe_interval}
    stage = _StageMaker(parts.execution.workspace, f"clips/{parts.clip.digest}")
    decode = stage("decode", f"Decode {name}", of=(), settings={"clip": parts.clip.digest})
    keyframe_flow = stage(
        "keyframe_flow", f"Flow of {pairs} keyframe pairs of {name}", of=(decode,), settings=by_interval
    )
    frame_flow = stage("frame_flow", f"Flow between the frames of {name}", of=(decode,), settings=flow)
    invert = stage("invert", f"Invert {frames}", of=(keyframe_flow,), settings=_invert_settings(parts, size))
    edit = stage("edit", f"Edit {frames}", of=(invert,), settings=_edit_settings(parts))
    propagation = {
        "backend": parts.execution.propagation,
        "propagation": asdict(PropagationSettings(seed=request.seed)),
    }
    propagate = stage("propagate", f"Propagate the edit over {name}", of=(edit, frame_flow), settings=propagation)
    # Named only where it is asked for, so that the identities of plain results stay what they were
    finish = {"full_resolution": True} if request.full_resolution else {}
    variant = "_full" if request.full_resolution else ""
    encode = stage("encode", f"Encode the edited {name}", of=(propagate,), settings=finish, variant=variant)
    assess = stage("assess", f"Assess the edited {name}", of=(encode,), variant=variant)
    stages = (decode, keyframe_flow, frame_flow, invert, edit, propagate, encode, assess)
    return {item.name: item for item in stages}


def _invert_settings(parts: ResolvedInputs, size: tuple[int, int]) -> dict[str, Any]:
    request = parts.request
    return {
        "model": parts.model.digest,
        "dtype": parts.execution.dtype,
        "size": size,
        "source_prompt": request.source_prompt,
        "inversion": asdict(InversionSettings(steps=request.steps, seed=request.seed)),
    }


def _edit_settings(parts: ResolvedInputs) -> dict[str, Any]:
    request, advice = parts.request, parts.model.advice
    default = EditingSettings()
    editing = EditingSettings(
        steps=request.steps,
        guidance_scale=_first(request.guidance_scale, advice.guidance_scale, default.guidance_scale),
        injection_fraction=_first(request.injection, advice.injection, default.injection_fraction),
    )
    return {
        "prompt": request.prompt,
        "negative_prompt": _first(request.negative_prompt, advice.negative_prompt, NEGATIVE_PROMPT),
        "editing": asdict(editing),
        "controlnet": parts.controlnet and parts.controlnet.digest,
    }


def _first(*values: T | None) -> T:
    """Return the first value that is given."""
    return next(value for value in values if value is not None)


@dataclass(frozen=True, slots=True)
class _StageMaker:
    workspace: str
    clip: str

    def __call__(
        self,
        name: str,
        title: str,
        *,
        of: tuple[Stage, ...],
        settings: Mapping[str, Any] | None = None,
        variant: str = "",
    ) -> Stage:
        settings = settings or {}
        digest = digest_of(name, VERSIONS[name], [item.ref.digest for item in of], settings)
        above = of[0].ref.path.split("/")[-2] if of else ""
        path = f"{self.clip}/{_PLACES[name].format(digest=digest, above=above)}{variant}"
        return Stage(
            name=name,
            title=title,
            ref=ArtifactRef(workspace=self.workspace, path=path, digest=digest),
            settings=settings,
        )
