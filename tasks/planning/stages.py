"""The table of stages: everything that is known of a stage, written once.

A new stage is a row of `STAGES`, a file with its task, and a line in the flow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from storage.artifact import Artifact
from storage.reference import ArtifactRef
from storage.video import DEINTERLACING, Encoding, Trim
from tasks.models.checkpoints import Advice
from tasks.models.devices import Backend
from tasks.planning.method import KeyframeFlow, Method, MethodChoices, resolve_method
from tasks.planning.outline import EditOutline
from tasks.planning.request import EditRequest
from wave_ops.propagation.settings import PropagationSettings
from wave_ops.settings import EditingSettings, InversionSettings, WarpMaskSettings
from wave_ops.sizes import analysis_size

__all__ = [
    "ASSESS",
    "DECODE",
    "EDIT",
    "ENCODE",
    "FRAME_FLOW",
    "INVERT",
    "KEYFRAME_FLOW",
    "PROPAGATE",
    "STAGES",
    "DecodeSettings",
    "EditSettings",
    "EncodeSettings",
    "FlowSettings",
    "InvertSettings",
    "NoSettings",
    "PropagateSettings",
    "Stage",
    "StageLoad",
    "StageSettings",
    "StageSpec",
]


class StageSettings(Protocol):
    """The settings that change a stage's result."""

    def identity(self) -> dict[str, Any]:
        """Return what enters the digest: JSON-able values by name."""
        ...


S_co = TypeVar("S_co", bound=StageSettings, covariant=True)
Resource = Literal["cpu", "gpu"]
_START_LIMIT = 1800.0
"""Seconds in which a stage begins: it may read a model over a slow network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Generic[S_co]):
    """One result to be: its path and identity, and the settings that change its value."""

    name: str
    title: str
    """What a person reads while it runs."""
    ref: ArtifactRef
    settings: S_co


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLoad:
    """What the time, the memory and the disk of a stage grow with."""

    pixels: int
    """Pixels that it computes: those of all frames, pairs or keyframes, once for each step."""
    at_once: int
    """Pixels of the frames that are in memory together."""
    array_bytes: int
    """Bytes of the frames or arrays that it stores, before compression."""
    device: str = "cpu"
    kind: str = ""
    """What else decides its speed, such as the network: only past runs of the same kind are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec(Generic[S_co]):
    """One row of the table."""

    name: str
    version: int
    """Version of the stage's algorithm: raise it where results change, and they are computed again."""
    path: str
    """Path in the clip's folder: {digest} is the stage's own, {edits} that of the frames of all shots, {shot} is empty
    where the clip is one shot, {part} where it is read as a whole, {variant} marks a result at full resolution."""
    inputs: tuple[str, ...]
    """Stages that this one is computed from."""
    settings: Callable[[EditOutline], S_co]
    title: Callable[[EditOutline], str]
    units: Callable[[EditOutline], int]
    """How many units of progress the stage has: frames, pairs or steps."""
    makes: Callable[[EditOutline], str]
    """What it makes, in words."""
    load: Callable[[EditOutline], StageLoad]
    """What its costs grow with."""
    stored: Callable[[Artifact], int] = lambda _: 0
    """Count the units that a stage which was begun and not completed has stored."""
    runs_on: Callable[[EditOutline], Resource] = lambda _: "cpu"
    """The resource of a worker that it needs."""
    unit: Literal["clip", "shot"] = "clip"
    """What it is computed for, independently of others of its kind."""
    unit_limit: Callable[[EditOutline], float] = lambda _: 120.0
    """Seconds that one unit takes at most, on any machine in use: enough for frames of 4K on a busy CPU."""

    def time_limit(self, outline: EditOutline) -> float:
        """Return the seconds after which the stage is ended and tried again."""
        return _START_LIMIT + self.units(outline) * self.unit_limit(outline)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSettings:
    """Settings of a stage that has none."""

    def identity(self) -> dict[str, Any]:
        """Return nothing."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSettings:
    """Settings of decoding."""

    clip: str
    """Digest of the source file."""
    conversions: tuple[str, ...] = ()
    """What is converted in addition to matrix and range."""
    deinterlace: bool = True
    """Whether frames of two fields become pictures of one moment."""
    trim: Trim = field(default_factory=Trim)
    """The part of the clip."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that change a clip's frames, so that ordinary clips keep their identities."""
        kept = [name for name in self.conversions if self.deinterlace or name != DEINTERLACING]
        part = {} if self.trim.is_whole else {"trim": asdict(self.trim)}
        return {"clip": self.clip} | ({"conversions": kept} if kept else {}) | part


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSettings:
    """Settings of optical flow, and of the warp masks that are computed from it."""

    estimator: str
    weights: str
    """Digest of the estimator's weights."""
    size: tuple[int, int]
    """Grid (height, width) that flow is estimated on, pixels."""
    keyframe_interval: int | None = None
    """Of the flow between keyframes; None for the flow between neighbouring frames."""
    frames: tuple[int, int] | None = None
    """First and last frame of the shot; None where the clip is one shot."""
    keyframes: KeyframeFlow | None = None
    """How flow between keyframes is estimated; None for the flow between neighbouring frames."""
    mask: WarpMaskSettings | None = None
    """Constants of the warp masks of pairs of keyframes."""

    def identity(self) -> dict[str, Any]:
        """See `StageSettings`."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertSettings:
    """Settings of the inversion."""

    model: str
    """Digest of the model."""
    dtype: str
    size: tuple[int, int]
    source_prompt: str
    inversion: InversionSettings

    def identity(self) -> dict[str, Any]:
        """See `StageSettings`."""
        return {**asdict(self), "inversion": _flat(self.inversion)}


_OF_MASKS: Final = ("keep_threshold", "keep_grow", "paste")


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSettings:
    """Settings of the keyframe editing."""

    prompt: str
    negative_prompt: str
    editing: EditingSettings
    controlnet: str | None
    """Digest of the ControlNets, their weights and inputs; None for none."""

    def identity(self) -> dict[str, Any]:
        """See `StageSettings`; what only a mask needs is left out where there is none."""
        editing = _flat(self.editing)
        if not self.editing.keep:
            editing = {name: value for name, value in editing.items() if name not in _OF_MASKS}
        return {**asdict(self), "editing": editing}


@dataclass(frozen=True, slots=True, kw_only=True)
class PropagateSettings:
    """Settings of the propagation."""

    backend: Backend
    propagation: PropagationSettings

    def identity(self) -> dict[str, Any]:
        """See `StageSettings`."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeSettings:
    """Settings of the encoding."""

    full_resolution: bool
    """Whether the source's frames guide the enlargement."""
    encoding: Encoding = field(default_factory=Encoding)

    def identity(self) -> dict[str, Any]:
        """Return the settings that differ from the default, so that plain results keep their identities."""
        encoding = self.encoding.identity()
        guided = {"full_resolution": True} if self.full_resolution else {}
        return guided | ({"encoding": encoding} if encoding else {})


def _flat(settings: InversionSettings | EditingSettings) -> dict[str, Any]:
    """Return settings as one mapping, with the values of their schedule among the others."""
    values = asdict(settings)
    return {**values.pop("schedule"), **values}


def _method(outline: EditOutline) -> Method:
    inputs = outline.inputs
    return _resolved(inputs.request, inputs.model.advice, inputs.controlnet is not None)


@lru_cache(maxsize=256)
def _resolved(request: EditRequest, advice: Advice, controlled: bool) -> Method:
    return resolve_method(
        MethodChoices(
            preset=request.preset,
            steps=request.steps,
            seed=request.seed,
            guidance_scale=request.guidance_scale,
            injection=request.injection,
            negative_prompt=request.negative_prompt,
            settings=request.set,
            source_prompt=request.source_prompt,
            controlled=controlled,
            advice=advice,
        )
    )


def _keyframe_flow_settings(outline: EditOutline) -> FlowSettings:
    method, raft = _method(outline), outline.inputs.flow.name == "raft"
    return replace(
        _flow_settings(outline),
        keyframe_interval=outline.request.keyframe_interval,
        keyframes="direct" if raft else method.flow.keyframes,  # RAFT takes no flow to start from
        mask=method.mask,
    )


def _flow_settings(outline: EditOutline) -> FlowSettings:
    flow = outline.inputs.flow
    return FlowSettings(
        estimator=flow.name,
        weights=flow.digest,
        size=analysis_size(outline.clip.size),
        frames=None if outline.shots_shown is None else (outline.frames[0], outline.frames[-1]),
    )


def _invert_settings(outline: EditOutline) -> InvertSettings:
    request = outline.request
    return InvertSettings(
        model=outline.inputs.model.digest,
        dtype=outline.execution.dtype,
        size=outline.size,
        source_prompt=request.source_prompt,
        inversion=_method(outline).inversion,
    )


def _edit_settings(outline: EditOutline) -> EditSettings:
    method, controlnet = _method(outline), outline.inputs.controlnet
    return EditSettings(
        prompt=outline.request.prompt,
        negative_prompt=method.negative_prompt,
        editing=method.editing,
        controlnet=None if controlnet is None else controlnet.digest,
    )


def _by(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width}x{height}"


def _keyframes(outline: EditOutline) -> str:
    count = len(outline.keyframes)
    return f"{count} keyframe{'s' if count > 1 else ''} of {outline.name}"


def _makes_frame_flow(outline: EditOutline) -> str:
    count = outline.clip.frame_count - outline.clip.shot_count
    return f"{count} pairs of frames, {_by(analysis_size(outline.clip.size))}"


def _makes_keyframes(outline: EditOutline) -> str:
    return f"{len(outline.keyframes)} keyframes, {_by(outline.size)}, {outline.request.steps} steps"


def _makes_video(outline: EditOutline) -> str:
    guided = ", guided by the source" if outline.request.full_resolution else ""
    encoding = outline.request.encoding(outline.clip.encoded)
    written = f", {encoding.codec} in {encoding.container}" if encoding.identity() else ""
    return f"{outline.clip.frame_count} frames, {_by(outline.clip.size)}{guided}{written}"


def _flow_resource(outline: EditOutline) -> Resource:
    """Return where flow is estimated: RAFT is a network, and DIS needs no other device than a CPU."""
    return "gpu" if outline.inputs.flow.name == "raft" else "cpu"


def _step_limit(outline: EditOutline) -> float:
    """Return the seconds that one step of all keyframes takes at most: minutes each on a CPU, by their pixels."""
    height, width = outline.size
    return 120.0 * len(outline.keyframes) * max(1.0, height * width / 512**2)


_LATENT_CHANNELS, _SINGLE, _HALF = 4, 4, 2  # bytes of a float32 and of a float16


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _device(outline: EditOutline) -> str:
    """Return where the networks run, as far as the plan says: where it is chosen by the worker, by what it entails."""
    execution = outline.execution
    if execution.device != "auto":
        return execution.device
    return "cuda" if execution.dtype == "float16" or execution.propagation == "torch" else "cpu"


def _decode_load(outline: EditOutline) -> StageLoad:
    area, count = _area(outline.clip.size), outline.clip.frame_count
    return StageLoad(pixels=count * area, at_once=area, array_bytes=3 * count * area)


def _flow_load(outline: EditOutline, *, pairs: int, masks: int) -> StageLoad:
    area = _area(analysis_size(outline.clip.size))
    return StageLoad(
        pixels=pairs * area,
        at_once=2 * area,
        array_bytes=pairs * area * (2 * 2 * _HALF + masks),  # both directions, x and y
        device=_device(outline) if _flow_resource(outline) == "gpu" else "cpu",
        kind=outline.inputs.flow.name,
    )


def _diffusion_load(outline: EditOutline, *, decoded: bool) -> StageLoad:
    """Return the load of the inversion or, where the keyframes are decoded and stored as well, of the edit."""
    model, controlnet, execution = outline.inputs.model, outline.inputs.controlnet, outline.execution
    area, count, steps = _area(outline.size), len(outline.keyframes), outline.request.steps
    latents = (steps + 1) * count * area // model.vae_factor**2 * _LATENT_CHANNELS * _SINGLE
    control = controlnet.digest if decoded and controlnet is not None else ""
    return StageLoad(
        pixels=steps * count * area,
        at_once=min(count, execution.keyframe_batch or count) * area,
        array_bytes=latents + (3 * count * area if decoded else 0),
        device=_device(outline),
        kind=f"{model.digest} {control} {execution.dtype}",
    )


def _propagate_load(outline: EditOutline) -> StageLoad:
    area, spans = _area(outline.size), [last - first + 1 for first, last in outline.intervals]
    backend = outline.execution.propagation
    return StageLoad(
        pixels=sum(spans) * area,
        at_once=max(spans) * area,
        array_bytes=3 * len(outline.frames) * area,
        device="cuda" if backend == "torch" else "cpu",
    )


def _video_load(outline: EditOutline) -> StageLoad:
    area, count = _area(outline.clip.size), outline.clip.frame_count
    kind = "full resolution" if outline.request.full_resolution else ""
    return StageLoad(pixels=count * area, at_once=area, array_bytes=3 * count * area, kind=kind)


def _stored_steps(artifact: Artifact) -> int:
    return max(artifact.readable_prefix("latents") - 1, 0)


def _stored_pairs(artifact: Artifact) -> int:
    return artifact.readable_prefix("to_prev")


def _stored_frames(artifact: Artifact) -> int:
    spans = (part.split("-") for part in artifact.completed_parts())
    return sum(int(last) - int(first) + 1 for first, last in spans)


DECODE = StageSpec(
    name="decode",
    version=2,
    path="{part}source",
    inputs=(),
    settings=lambda outline: DecodeSettings(
        clip=outline.clip.digest,
        conversions=outline.clip.conversions,
        deinterlace=outline.request.interlaced == "deinterlace",
        trim=outline.request.trim,
    ),
    title=lambda outline: f"Decode {outline.clip.name}",
    units=lambda outline: outline.clip.frame_count,
    makes=lambda outline: f"{outline.clip.frame_count} frames, {_by(outline.clip.size)}",
    load=_decode_load,
)
FRAME_FLOW = StageSpec(
    name="frame_flow",
    version=1,
    path="frame_flow/{digest}",
    unit="shot",
    inputs=("decode",),
    settings=_flow_settings,
    title=lambda outline: f"Flow between the frames of {outline.name}",
    units=lambda outline: len(outline.frames) - 1,
    makes=lambda outline: (
        f"{len(outline.frames) - outline.clip.shot_count} pairs of frames, {_by(analysis_size(outline.clip.size))}"
    ),
    load=lambda outline: _flow_load(outline, pairs=len(outline.frames) - 1, masks=0),
    stored=_stored_pairs,
    runs_on=_flow_resource,
)
KEYFRAME_FLOW = StageSpec(
    name="keyframe_flow",
    version=2,
    path="keyframe_flow/{digest}",
    unit="shot",
    inputs=("decode", "frame_flow"),
    settings=_keyframe_flow_settings,
    title=lambda outline: f"Flow of {len(outline.pairs)} keyframe pairs of {outline.name}",
    units=lambda outline: len(outline.pairs),
    makes=lambda outline: f"{len(outline.pairs)} pairs of keyframes, {_by(analysis_size(outline.clip.size))}",
    load=lambda outline: _flow_load(outline, pairs=len(outline.pairs), masks=2),
    stored=_stored_pairs,
    runs_on=_flow_resource,
)
INVERT = StageSpec(
    name="invert",
    version=2,
    path="inversion/{digest}",
    unit="shot",
    inputs=("keyframe_flow",),
    settings=_invert_settings,
    title=lambda outline: f"Invert {_keyframes(outline)}",
    units=lambda outline: outline.request.steps,
    makes=_makes_keyframes,
    load=lambda outline: _diffusion_load(outline, decoded=False),
    stored=_stored_steps,
    runs_on=lambda _: "gpu",
    unit_limit=_step_limit,
)
EDIT = StageSpec(
    name="edit",
    version=2,
    path="keyframes/{digest}",
    unit="shot",
    inputs=("invert",),
    settings=_edit_settings,
    title=lambda outline: f"Edit {_keyframes(outline)}",
    units=lambda outline: outline.request.steps,
    makes=_makes_keyframes,
    load=lambda outline: _diffusion_load(outline, decoded=True),
    stored=_stored_steps,
    runs_on=lambda _: "gpu",
    unit_limit=_step_limit,
)
PROPAGATE = StageSpec(
    name="propagate",
    version=4,
    path="edits/{edits}/frames{shot}",
    unit="shot",
    inputs=("edit", "frame_flow"),
    settings=lambda outline: PropagateSettings(
        backend=outline.execution.propagation, propagation=_method(outline).propagation
    ),
    title=lambda outline: f"Propagate the edit over {outline.name}",
    units=lambda outline: sum(last - first + 1 for first, last in outline.intervals),
    makes=lambda outline: f"{outline.clip.frame_count} frames, {_by(outline.size)}, {len(outline.intervals)} intervals",
    load=_propagate_load,
    stored=_stored_frames,
    runs_on=lambda outline: "gpu" if outline.execution.propagation == "torch" else "cpu",
)
ENCODE = StageSpec(
    name="encode",
    version=4,
    path="edits/{edits}/video{variant}",
    inputs=("propagate",),
    settings=lambda outline: EncodeSettings(
        full_resolution=outline.request.full_resolution, encoding=outline.request.encoding(outline.clip.encoded)
    ),
    title=lambda outline: f"Encode the edited {outline.clip.name}",
    units=lambda outline: outline.clip.frame_count,
    makes=_makes_video,
    load=_video_load,
)
ASSESS = StageSpec(
    name="assess",
    version=3,
    path="edits/{edits}/report{variant}",
    inputs=("encode",),
    settings=lambda _: NoSettings(),
    title=lambda outline: f"Assess the edited {outline.clip.name}",
    units=lambda outline: outline.clip.frame_count,
    makes=lambda _: "report, contact sheet, source and edit side by side",
    load=_video_load,
)
STAGES: tuple[StageSpec[StageSettings], ...] = (
    DECODE,
    FRAME_FLOW,
    KEYFRAME_FLOW,
    INVERT,
    EDIT,
    PROPAGATE,
    ENCODE,
    ASSESS,
)
"""All stages in the order in which they run."""
