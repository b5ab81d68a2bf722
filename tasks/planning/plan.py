"""Plans: the results that a request needs, and the identity of each, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar, cast

from storage.digest import digest_of
from storage.reference import ArtifactRef
from tasks.errors import TaskInputError
from tasks.planning.outline import ClipFacts, EditOutline, Execution, ResolvedInputs
from tasks.planning.stages import STAGES, Stage, StageSettings, StageSpec
from wave_ops.keyframes import keyframe_indices, keyframe_intervals
from wave_ops.resize import fit_size
from wave_ops.shuffle import reachable_pairs

__all__ = ["ClipFacts", "EditPlan", "Execution", "ResolvedInputs", "Stage", "plan_edit"]

S = TypeVar("S", bound=StageSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditPlan(EditOutline):
    """The stages of one edit, with everything that their tasks need to know."""

    stages: tuple[Stage[StageSettings], ...]
    """One for each row of `STAGES`, in its order."""

    def __getitem__(self, spec: StageSpec[S]) -> Stage[S]:
        """Return the stage of a row of the table."""
        stage = next(stage for stage in self.stages if stage.name == spec.name)
        return cast("Stage[S]", stage)


def plan_edit(inputs: ResolvedInputs) -> EditPlan:
    """Plan an edit.

    Only what changes a result's value enters its digest, so a second prompt on a clip shares the decoded
    frames, the flows and the inversion with the first.

    Raises:
        TaskInputError: if the working size does not fit the model.
    """
    clip, cuts = inputs.clip, inputs.clip.cuts or ()
    keyframes = keyframe_indices(clip.frame_count, inputs.request.keyframe_interval, cuts=cuts)
    outline = EditOutline(
        inputs=inputs,
        size=_working_size(inputs),
        keyframes=keyframes,
        pairs=reachable_pairs(len(keyframes)),
        intervals=keyframe_intervals(keyframes, cuts=cuts),
    )
    facts = {field.name: getattr(outline, field.name) for field in fields(EditOutline)}
    return EditPlan(**facts, stages=_stages(outline))


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


def _stages(outline: EditOutline) -> tuple[Stage[StageSettings], ...]:
    """Fill in the table: settings, digest and path of each stage, each digest from those of the stage's inputs."""
    digests: dict[str, str] = {}
    return tuple(_stage(spec, outline, digests) for spec in STAGES)


def _stage(spec: StageSpec[S], outline: EditOutline, digests: dict[str, str]) -> Stage[S]:
    settings = spec.settings(outline)
    digest = digest_of(spec.name, spec.version, [digests[name] for name in spec.inputs], settings.identity())
    digests[spec.name] = digest
    variant = "_full" if outline.request.full_resolution else ""
    path = spec.path.format(**digests, digest=digest, variant=variant)
    return Stage(
        name=spec.name,
        title=spec.title(outline),
        ref=ArtifactRef(
            workspace=outline.execution.workspace, path=f"clips/{outline.clip.digest}/{path}", digest=digest
        ),
        settings=settings,
    )
