"""Plans: the results that a request needs, and the identity of each, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import TypeVar, cast

from storage.digest import digest_of
from storage.reference import ArtifactRef
from tasks.errors import TaskInputError
from tasks.planning.outline import ClipFacts, EditOutline, Execution, ResolvedInputs
from tasks.planning.stages import DECODE, PROPAGATE, STAGES, Stage, StageSettings, StageSpec
from wave_ops.keyframes import keyframe_indices, keyframe_intervals
from wave_ops.shuffle import reachable_pairs
from wave_ops.sizes import fit_size

__all__ = ["ClipFacts", "EditPlan", "Execution", "ResolvedInputs", "Stage", "joined", "plan_edit"]

S = TypeVar("S", bound=StageSettings)


@dataclass(frozen=True, slots=True)
class _Identity:
    """Digest and settings of a stage."""

    digest: str
    settings: StageSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class EditPlan(EditOutline):
    """The stages of the edit of a clip, or of one of its shots, with everything that their tasks need to know."""

    stages: tuple[Stage[StageSettings], ...]
    """In the order of `STAGES`. The plan of a clip of several shots has only the stages of the whole clip, the plan
    of such a shot only decoding and the stages of a shot; where the clip is one shot, its plan has all."""
    several_shots: tuple[EditPlan, ...] = ()
    """A plan for each shot, where there are several."""

    def __getitem__(self, spec: StageSpec[S]) -> Stage[S]:
        """Return the stage of a row of the table. Raises KeyError where the plan does not have it."""
        for stage in self.stages:
            if stage.name == spec.name:
                return cast("Stage[S]", stage)
        raise KeyError(f"{self.name} has no single stage {spec.name}: see the plans of its shots")

    @property
    def shots(self) -> tuple[EditPlan, ...]:
        """The plans of the shots; the plan itself where the clip is one shot."""
        return self.several_shots or (self,)

    def parts(self, spec: StageSpec[S]) -> tuple[EditPlan, ...]:
        """Return the plans that have a stage: that of the clip, or those of its shots."""
        return self.shots if spec.unit == "shot" else (self,)

    def stages_of(self, spec: StageSpec[S]) -> tuple[Stage[S], ...]:
        """Return a row of the table for the whole clip, or for each of its shots."""
        return tuple(part[spec] for part in self.parts(spec))

    def units(self, spec: StageSpec[S]) -> int:
        """Return how many units of progress a stage has, over all shots."""
        return sum(spec.units(part) for part in self.parts(spec))


def plan_edit(inputs: ResolvedInputs) -> EditPlan:
    """Plan an edit.

    Only what changes a result's value enters its digest, so a second prompt on a clip shares the decoded
    frames, the flows and the inversion with the first. The shots of a clip are edited independently of each other.

    Raises:
        TaskInputError: if the working size does not fit the model, or the clip is HDR and that is refused.
    """
    if inputs.clip.hdr and inputs.request.hdr == "refuse":
        raise TaskInputError(
            f"The clip {inputs.clip.name} is {inputs.clip.hdr}: choose --hdr tone-map, or convert it to SDR first."
        )
    size, clip = _working_size(inputs), inputs.clip
    outlines = [_outline(inputs, size, frames) for frames in clip.shots]
    if len(outlines) > 1:
        outlines = [replace(outline, shots_shown=(number, number)) for number, outline in enumerate(outlines, start=1)]
    shared, own = _identities(outlines)
    frames = [found[PROPAGATE.name].digest for found in own]
    edits = frames[0] if len(frames) == 1 else digest_of("edits", frames)
    if len(outlines) == 1:
        return _plan(outlines[0], shared | own[0], edits)
    decoded = {DECODE.name: shared[DECODE.name]}
    shots = (_plan(outline, decoded | found, edits) for outline, found in zip(outlines, own, strict=True))
    return replace(_plan(joined(outlines), shared, edits), several_shots=tuple(shots))


def _outline(inputs: ResolvedInputs, size: tuple[int, int], frames: range) -> EditOutline:
    relative = keyframe_indices(len(frames), inputs.request.keyframe_interval)
    keyframes = tuple(frames[index] for index in relative)
    return EditOutline(
        inputs=inputs,
        size=size,
        frames=frames,
        keyframes=keyframes,
        pairs=reachable_pairs(len(keyframes)),
        intervals=keyframe_intervals(keyframes),
    )


def joined(shots: Sequence[EditOutline]) -> EditOutline:
    """Return one outline of neighbouring shots of a clip."""
    first, last = shots[0], shots[-1]
    offsets = accumulate((len(shot.keyframes) for shot in shots), initial=0)
    pairs = ((a + offset, b + offset) for shot, offset in zip(shots, offsets, strict=False) for a, b in shot.pairs)
    whole = len(shots) == first.clip.shot_count
    return EditOutline(
        inputs=first.inputs,
        size=first.size,
        frames=range(first.frames.start, last.frames.stop),
        shots_shown=None if whole else (min(first.shots_shown or (1,)), max(last.shots_shown or (1,))),
        keyframes=tuple(index for shot in shots for index in shot.keyframes),
        pairs=tuple(pairs),
        intervals=tuple(interval for shot in shots for interval in shot.intervals),
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


def _identities(shots: Sequence[EditOutline]) -> tuple[dict[str, _Identity], list[dict[str, _Identity]]]:
    """Return the identities of the clip's stages, and of each shot's, by name."""
    shared: dict[str, _Identity] = {}
    own: list[dict[str, _Identity]] = [{} for _ in shots]
    for spec in STAGES:
        if spec.unit == "shot":
            for outline, found in zip(shots, own, strict=True):
                found[spec.name] = _identity(spec, outline, [shared | found])
        else:
            shared[spec.name] = _identity(spec, shots[0], [shared | found for found in own])
    return shared, own


def _identity(
    spec: StageSpec[StageSettings], outline: EditOutline, known: Sequence[Mapping[str, _Identity]]
) -> _Identity:
    """Return the settings of a stage, and its digest, from those of its inputs: of all shots, for a stage of a clip."""
    settings = spec.settings(outline)
    inputs = dict.fromkeys(found[name].digest for name in spec.inputs for found in known)
    return _Identity(digest_of(spec.name, spec.version, list(inputs), settings.identity()), settings)


def _plan(outline: EditOutline, identities: Mapping[str, _Identity], edits: str) -> EditPlan:
    """Fill in the table: title and path of the stages with a given identity."""
    facts = {field.name: getattr(outline, field.name) for field in fields(EditOutline)}
    stages = (_stage(spec, outline, identities[spec.name], edits) for spec in STAGES if spec.name in identities)
    return EditPlan(**facts, stages=tuple(stages))


def _stage(spec: StageSpec[S], outline: EditOutline, identity: _Identity, edits: str) -> Stage[S]:
    variant = "_full" if outline.request.full_resolution else ""
    shot = "" if outline.shots_shown is None else f"/{identity.digest}"
    path = spec.path.format(digest=identity.digest, edits=edits, variant=variant, shot=shot)
    return Stage(
        name=spec.name,
        title=spec.title(outline),
        ref=ArtifactRef(
            workspace=outline.execution.workspace,
            path=f"clips/{outline.clip.digest}/{path}",
            digest=identity.digest,
        ),
        settings=cast("S", identity.settings),
    )
