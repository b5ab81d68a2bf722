"""The plan of a run of a comparison: its clips and methods, and the identity of every outcome."""

from __future__ import annotations

import fnmatch
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from storage.digest import digest_of
from storage.reference import ArtifactRef
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.clips.manifest import ManifestRow, read_clip, read_manifest
from tasks.evaluation.comparisons.comparison import Comparison, Method, Resources
from tasks.evaluation.comparisons.registry import comparison
from tasks.evaluation.request import EvaluationRequest
from tasks.evaluation.resources import resolve_resources, resources_digest
from tasks.planning.outline import Execution
from tasks.planning.stages import NoSettings, Stage

__all__ = ["EvaluationPlan", "PlannedClip", "load_planned_clip", "plan_evaluation", "planned_clips"]

_DRAWING = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedClip:
    """A clip without its frames, as tasks pass it on."""

    index: int
    name: str
    group: str
    edit: str | None
    """The kinds of its edits."""
    digest: str
    row: ManifestRow | None = None
    """Its row, if it comes from a table of real clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """Everything that the tasks of a run need."""

    request: EvaluationRequest
    methods: tuple[Method, ...]
    clips: tuple[PlannedClip, ...]
    resources: Resources
    identity: str
    """Digest of the inputs that all outcomes share: the comparison, its version and the resources."""
    workspace: str

    @property
    def name(self) -> str:
        """The comparison's name."""
        return self.request.comparison

    def ref(self, clip: PlannedClip, method: Method) -> ArtifactRef:
        """Return the reference of a method's outcome on a clip.

        It depends on no other method or clip, so that adding one recomputes nothing else.
        """
        digest = digest_of(self.identity, clip.digest, dict(method.factors))
        return ArtifactRef(workspace=self.workspace, path=f"{self._folder(clip)}/{digest}", digest=digest)

    def stage(self, clip: PlannedClip) -> Stage[NoSettings]:
        """Return the stage of a clip, under which its progress is reported."""
        count = len(self.methods)
        return Stage(
            name="evaluate",
            title=f"{clip.name}: {count} method{'s' if count > 1 else ''}",
            ref=ArtifactRef(workspace=self.workspace, path=self._folder(clip), digest=clip.digest),
            settings=NoSettings(),
        )

    def _folder(self, clip: PlannedClip) -> str:
        return f"evaluations/{self.name}/{re.sub(r'[^a-z0-9]+', '-', clip.name.lower()).strip('-') or 'clip'}"


def plan_evaluation(request: EvaluationRequest, *, execution: Execution, flow_weights: str = "") -> EvaluationPlan:
    """Plan a run.

    Raises:
        TaskInputError: if the comparison, a network or the manifest cannot be used.
        WorkspaceError: if the workspace cannot be opened.
    """
    workspace = Workspace.open(execution.workspace).url
    resources = resolve_resources(request, device=execution.device, dtype=execution.dtype, flow_weights=flow_weights)
    found = comparison(request.comparison)
    methods, clips = tuple(found.methods(quick=request.quick)), planned_clips(request)
    _check(found, methods, clips)
    # A comparison may offer all rows in a quick run, of which these are taken if no method is named
    named = request.method or (getattr(found, "quick_rows", ()) if request.quick else ())
    methods = _select(methods, named, baseline=found.baseline)
    return EvaluationPlan(
        request=request,
        methods=methods,
        clips=clips,
        resources=resources,
        identity=digest_of("evaluation", found.name, found.version, resources_digest(resources)),
        workspace=workspace,
    )


def load_planned_clip(request: EvaluationRequest, clip: PlannedClip) -> EvaluationClip:
    """Draw or read a planned clip.

    Raises:
        TaskInputError: if it has changed since it was planned.
        VideoError: if a real clip can no longer be read.
    """
    loaded = _drawn_clips(request)[clip.index] if clip.row is None else read_clip(clip.row)
    if loaded.digest != clip.digest:
        raise TaskInputError(f"The clip {clip.name} has changed since it was planned; start the evaluation again.")
    return loaded


def planned_clips(request: EvaluationRequest) -> tuple[PlannedClip, ...]:
    """List the clips of a run: rows of the manifest if there is one, else the scenes that the comparison draws.

    Raises:
        TaskInputError: if the comparison or the manifest cannot be used.
    """
    if request.manifest is not None and _manifest_reader(comparison(request.comparison)) is None:
        rows = read_manifest(Path(request.manifest).expanduser(), count=request.clips)
        return tuple(
            PlannedClip(index=i, name=row.name, group="real", edit="prompt", digest=row.digest, row=row)
            for i, row in enumerate(rows)
        )
    return tuple(
        PlannedClip(
            index=i,
            name=clip.name,
            group=clip.group,
            edit=", ".join(dict.fromkeys(edit.kind for edit in clip.edits)) or None,
            digest=clip.digest,
        )
        for i, clip in enumerate(_drawn_clips(request))
    )


def _drawn_clips(request: EvaluationRequest) -> Sequence[EvaluationClip]:
    """Draw the clips once in a process: tasks in other threads wait for the first one."""
    with _DRAWING:
        return _draw(request)


@lru_cache(maxsize=1)
def _draw(request: EvaluationRequest) -> tuple[EvaluationClip, ...]:
    found = comparison(request.comparison)
    read_clips = _manifest_reader(found)
    if request.manifest is not None and read_clips is not None:
        return read_clips(Path(request.manifest).expanduser(), count=request.clips)
    return tuple(found.clips(quick=request.quick, count=request.clips, seed=request.seed))


def _manifest_reader(found: Comparison) -> Callable[..., tuple[EvaluationClip, ...]] | None:
    """Return the comparison's own reader of `--manifest`; None if it takes a table of videos."""
    return getattr(found, "manifest_clips", None)


def _select(methods: Sequence[Method], patterns: Sequence[str], *, baseline: str) -> tuple[Method, ...]:
    """Return the methods that match a pattern, the baseline, and the reference rows."""
    names = [method.name for method in methods]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            near = ", ".join(get_close_matches(pattern, names, n=3, cutoff=0.3)) or ", ".join(names[:3])
            raise TaskInputError(f"There is no method {pattern!r} in this comparison; the nearest are: {near}.")
    selected = {name for pattern in patterns for name in fnmatch.filter(names, pattern)} | {baseline}
    selected |= {method.name for method in methods if method.reference}
    return tuple(method for method in methods if not patterns or method.name in selected)


def _check(found: Comparison, methods: Sequence[Method], clips: Sequence[PlannedClip]) -> None:
    """Check that a comparison is consistent, so that no two outcomes share a name or an identity."""
    _check_distinct(found.name, "methods", [method.name for method in methods])
    _check_distinct(found.name, "factors", [json.dumps(dict(item.factors), sort_keys=True) for item in methods])
    _check_distinct(found.name, "clips", [clip.name for clip in clips])
    _check_distinct(found.name, "measures", [measure.name for measure in found.measures])
    if found.baseline not in {method.name for method in methods}:
        raise TaskInputError(f"The comparison {found.name!r} does not run its baseline {found.baseline!r}.")
    if len({frozenset(method.factors) for method in methods}) > 1:
        raise TaskInputError(f"The methods of the comparison {found.name!r} do not all have the same factors.")
    nameless = [clip.name for clip in clips if not clip.digest]
    if nameless:
        raise TaskInputError(f"The clip {nameless[0]!r} of the comparison {found.name!r} has no digest.")
    if not clips:
        raise TaskInputError(f"The comparison {found.name!r} has no clips to run on.")


def _check_distinct(name: str, kind: str, values: Iterable[str]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise TaskInputError(f"The comparison {name!r} has two {kind} {twice[0]!r}.")
