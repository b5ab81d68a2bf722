"""The plan of a data set: for each row its results, whether they are complete, and why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

from storage.errors import VideoError
from storage.limits import using_limits
from storage.reference import ArtifactRef
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.models.checkpoints import ControlKind, ModelIdentity, resolve_model
from tasks.models.controlnets import ControlInput, ControlSet, resolve_controlnets
from tasks.models.flow_estimators import FlowIdentity, resolve_flow
from tasks.models.lora import resolve_loras
from tasks.planning.control_videos import find_control
from tasks.planning.decoded_facts import read_decoded_facts
from tasks.planning.outline import ClipFacts, Execution, ResolvedInputs
from tasks.planning.plan import EditPlan, plan_edit
from tasks.planning.request import FlowName
from tasks.planning.row import Row
from tasks.planning.source_facts import SourceFacts, read_source_facts
from tasks.planning.stages import ASSESS, DECODE, ENCODE, STAGES, StageLoad

__all__ = ["BulkPlan", "PlannedRow", "plan_rows", "planned_again", "row_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRow:
    """One row, with the identity of its results."""

    row: Row
    video: ArtifactRef | None = None
    """The artifact of the edited clip; None where the row cannot be planned."""
    report: ArtifactRef | None = None
    complete: bool = False
    """Whether the workspace contains both."""
    reason: str = ""
    """Why it is computed: new, or what has changed since it was computed last."""
    error: str = ""
    """Why the row cannot be planned; such an error does not heal."""
    identity: Mapping[str, str] = field(default_factory=dict)
    """Digests of source, model and settings, and the versions of the stages: what a change is recognised by."""
    stages: tuple[tuple[str, ...], ...] = ()
    """Digests of the results of all stages, in the order of the table: one for each shot where it is made for shots."""
    loads: tuple[tuple[StageLoad, ...], ...] = ()
    """What the costs of these results grow with, in the same order."""

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of the results of all stages."""
        return tuple(chain.from_iterable(self.stages))


@dataclass(frozen=True, kw_only=True)
class BulkPlan:
    """All rows, those of one source next to one another."""

    rows: tuple[PlannedRow, ...]
    execution: Execution
    flow_weights: str

    def rows_of(self, clip: str) -> tuple[PlannedRow, ...]:
        """Return the rows of a clip, given by its digest."""
        return self._by_clip.get(clip, ())

    @cached_property
    def _by_clip(self) -> dict[str, tuple[PlannedRow, ...]]:
        found: dict[str, list[PlannedRow]] = {}
        for item in self.rows:
            found.setdefault(item.identity.get("source", ""), []).append(item)
        return {clip: tuple(items) for clip, items in found.items()}

    @property
    def to_run(self) -> tuple[PlannedRow, ...]:
        """Rows that are computed."""
        return tuple(item for item in self.rows if not item.complete and not item.error)

    @property
    def computed_stages(self) -> dict[str, tuple[int, int]]:
        """How many results of each stage the rows to run need, shared ones counted once, and how many unshared."""
        rows = self.to_run
        return {spec.name: (len({item.stages[place] for item in rows}), len(rows)) for place, spec in enumerate(STAGES)}

    @property
    def reasons(self) -> Counter[str]:
        """How many rows are computed for each reason."""
        return Counter(item.reason for item in self.to_run)


def plan_rows(
    rows: Sequence[Row],
    *,
    execution: Execution,
    flow_weights: str = "",
    before: Mapping[tuple[str, int], Mapping[str, Any]] | None = None,
    remember: bool = True,
) -> BulkPlan:
    """Plan the rows of a data set without Prefect; a source or a model that cannot be used fails its rows alone.

    Args:
        rows: in the order in which they run.
        execution: where and how.
        flow_weights: see `resolve_flow`.
        before: the identity columns of earlier runs by id and variant, for the reason of a recomputation.
        remember: whether facts about sources are stored.

    Raises:
        WorkspaceError: if the workspace cannot be opened.
    """
    for networks in (_model, _controlnet, _flow):
        networks.cache_clear()  # a model may have been replaced since the last plan
    workspace = Workspace.open(execution.workspace)
    execution = replace(execution, workspace=workspace.url)
    with using_limits(execution.limits):
        facts = read_source_facts((row.clip for row in rows), workspace, remember=remember)
    decoded: dict[str, ClipFacts] = {}
    planned = tuple(
        _plan_row(row, facts[row.clip], decoded, workspace, execution, flow_weights, (before or {}).get(row.key))
        for row in rows
    )
    return BulkPlan(rows=planned, execution=execution, flow_weights=flow_weights)


def row_plan(item: PlannedRow, bulk: BulkPlan) -> EditPlan:
    """Return the whole plan of a row, which is too large to keep for every row.

    Raises:
        TaskInputError: if the source or the model can no longer be used.
    """
    workspace = Workspace.open(bulk.execution.workspace)
    with using_limits(bulk.execution.limits):
        found = read_source_facts([item.row.clip], workspace, remember=False)[item.row.clip]
    if found.clip is None:
        raise TaskInputError(found.error)
    return _with_decoded(_plan(item.row, found.clip, bulk.execution, bulk.flow_weights), workspace, {})


def planned_again(item: PlannedRow, bulk: BulkPlan) -> PlannedRow:
    """Plan a row with what decoding has found: cuts decide which results it has.

    Raises:
        TaskInputError: see `row_plan`.
    """
    return replace(item, **_results(row_plan(item, bulk)))


def _results(plan: EditPlan) -> dict[str, Any]:
    """Return the fields of a planned row that say what is made."""
    return {
        "video": plan[ENCODE].ref,
        "report": plan[ASSESS].ref,
        "identity": _identity(plan),
        "stages": tuple(tuple(stage.ref.digest for stage in plan.stages_of(spec)) for spec in STAGES),
        "loads": tuple(tuple(spec.load(part) for part in plan.parts(spec)) for spec in STAGES),
    }


def _plan_row(
    row: Row,
    found: SourceFacts,
    decoded: dict[str, ClipFacts],
    workspace: Workspace,
    execution: Execution,
    flow_weights: str,
    before: Mapping[str, Any] | None,
) -> PlannedRow:
    if found.clip is None:
        return PlannedRow(row=row, error=found.error)
    try:
        plan = _with_decoded(_plan(row, found.clip, execution, flow_weights), workspace, decoded)
    except (TaskInputError, VideoError) as error:
        return PlannedRow(row=row, error=str(error))
    results = _results(plan)
    complete = all(workspace.artifact(plan[spec].ref).is_complete() for spec in (ASSESS, ENCODE))
    return PlannedRow(
        row=row,
        complete=complete,
        reason="" if complete else _reason(results["identity"], before),
        **results,
    )


def _plan(row: Row, clip: ClipFacts, execution: Execution, flow_weights: str) -> EditPlan:
    request = row.request
    model = _model(request.model, request.vae, request.lora, execution.dtype)
    clip = clip.trimmed(request.trim, execution.limits)
    with using_limits(execution.limits):
        controls = tuple(find_control(text, clip=clip, trim=request.trim) for text in request.control)
    return plan_edit(
        ResolvedInputs(
            request=request,
            clip=clip,
            model=model,
            controlnet=_controlnet(request.controlnets, controls, model, execution.dtype),
            flow=_flow(request.flow, flow_weights),
            execution=execution,
        )
    )


def _with_decoded(plan: EditPlan, workspace: Workspace, decoded: dict[str, ClipFacts]) -> EditPlan:
    """Plan again with the number of frames and the cuts that decoding has found, where the clip has been decoded."""
    ref = plan[DECODE].ref
    if ref.path not in decoded:
        decoded[ref.path] = read_decoded_facts(plan.clip, ref, workspace)
    clip = replace(decoded[ref.path], name=plan.clip.name)
    return plan if clip == plan.clip else plan_edit(replace(plan.inputs, clip=clip))


def _identity(plan: EditPlan) -> dict[str, str]:
    inputs = plan.inputs
    control = "" if inputs.controlnet is None else inputs.controlnet.digest
    return {
        "source": plan.clip.digest,
        "model": f"{inputs.model.digest} {control}".strip(),
        "versions": " ".join(f"{spec.name}={spec.version}" for spec in STAGES),
        "result": plan[ASSESS].ref.digest,
    }


def _reason(identity: Mapping[str, str], before: Mapping[str, Any] | None) -> str:
    if before is None or not before.get("result"):
        return "new"
    changes = [
        text
        for name, text in (
            ("source", "the source changed"),
            ("model", "the model changed"),
            ("versions", _raised(identity["versions"], str(before.get("versions") or ""))),
        )
        if before.get(name) and before.get(name) != identity[name]
    ]
    if changes:
        return ", ".join(changes)
    return "its results are missing" if before.get("result") == identity["result"] else "its settings changed"


def _raised(now: str, before: str) -> str:
    changed = sorted(set(now.split()) - set(before.split()))
    return f"another version of {', '.join(part.split('=')[0] for part in changed)}"


# Networks are found once for each name that rows use
@lru_cache(maxsize=64)
def _model(name: str, vae: str | None, loras: tuple[str, ...], dtype: str) -> ModelIdentity:
    return resolve_loras(resolve_model(name, vae=vae, dtype=dtype), loras)


@lru_cache(maxsize=64)
def _controlnet(
    specs: tuple[str, ...], controls: tuple[tuple[ControlKind, ControlInput], ...], model: ModelIdentity, dtype: str
) -> ControlSet | None:
    return resolve_controlnets(specs, controls, model=model, dtype=dtype)


@lru_cache(maxsize=8)
def _flow(name: FlowName, weights: str) -> FlowIdentity:
    return resolve_flow(name, weights=weights)
