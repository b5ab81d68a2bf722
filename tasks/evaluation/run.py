"""Run the methods of a comparison on one clip, and store each outcome as soon as it is computed."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, cast

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.artifact import Artifact
from storage.errors import StorageError
from storage.workspace import Workspace
from tasks.cancel import cancellable_task
from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.comparisons.comparison import Method, Outcome
from tasks.evaluation.comparisons.registry import comparison
from tasks.evaluation.plan import EvaluationPlan, PlannedClip, load_planned_clip
from tasks.evaluation.previews import amplified_difference, write_film
from tasks.progress import stage_progress
from tasks.stage import RETRIES
from wave_ops.errors import WaveOpsError

__all__ = ["DIFFERENCE", "REFERENCE", "RESULT", "evaluate_clip", "measure_clip"]

RESULT = "result.mp4"
"""The method's frames, in the artifact of its outcome."""
REFERENCE = "wanted.mp4"  # the name in stored outcomes
"""The correct frames; only if they are not the source."""
DIFFERENCE = "difference.mp4"
"""The amplified difference from the reference."""


def measure_clip(plan: EvaluationPlan, clip: PlannedClip) -> int:
    """Run the methods without a stored outcome, and return their number.

    Raises:
        TaskInputError: one sentence that names clip and method, if a method cannot process the clip.
    """
    workspace = Workspace.open(plan.workspace)
    outcomes = {method.name: workspace.artifact(plan.ref(clip, method)) for method in plan.methods}
    missing = [method for method in plan.methods if not _is_stored(outcomes[method.name])]
    done = len(plan.methods) - len(missing)
    with stage_progress(plan.stage(clip), total=len(plan.methods), done=done, part=clip.name) as progress:
        if not missing:
            return 0
        loaded, start = load_planned_clip(plan.request, clip), time.perf_counter()
        for method, outcome in _checked(plan, loaded, missing):
            _store(outcomes[method.name], outcome, loaded, seconds=time.perf_counter() - start)
            done, start = done + 1, time.perf_counter()
            progress.report(done)
    return len(missing)


def _is_stored(outcome: Artifact) -> bool:
    """Return whether an outcome is stored; one without scores is discarded: its network may be available by now."""
    if outcome.is_complete() and not outcome.metadata["scores"]:
        outcome.discard()
    return outcome.is_complete()


def _run_name(*, parameters: Mapping[str, Any]) -> str:
    title: str = parameters["plan"].stage(parameters["clip"]).title
    return title


# The workspace, not Prefect's cache, records which outcomes are stored, method by method
def _evaluate_clip(plan: EvaluationPlan, clip: PlannedClip) -> int:
    """Run the methods on a clip as a task, which ends when its flow run is cancelled; see `measure_clip`."""
    return cancellable_task(lambda: measure_clip(plan, clip))


evaluate_clip = task(
    name="evaluate clip",
    tags=["wave"],
    task_run_name=_run_name,  # type: ignore[arg-type]  # called with the parameters, by their name
    cache_policy=NO_CACHE,
    persist_result=False,
    **cast("Any", RETRIES),
)(_evaluate_clip)


def _checked(plan: EvaluationPlan, clip: EvaluationClip, methods: Sequence[Method]) -> Iterator[tuple[Method, Outcome]]:
    """Yield the outcomes as they are computed, and check that they are those of the methods."""
    waiting = {method.name: method for method in methods}
    # Closed in any case: a comparison may keep the model until its last outcome
    with closing(_outcomes(plan, clip, methods)) as outcomes:
        while waiting:
            method, outcome = _next(plan, outcomes, clip=clip, waiting=waiting)
            del waiting[method.name]
            yield method, outcome


def _outcomes(
    plan: EvaluationPlan, clip: EvaluationClip, methods: Sequence[Method]
) -> Generator[tuple[Method, Outcome]]:
    yield from comparison(plan.name).measure(clip, methods, plan.resources)


def _next(
    plan: EvaluationPlan,
    outcomes: Iterator[tuple[Method, Outcome]],
    *,
    clip: EvaluationClip,
    waiting: Mapping[str, Method],
) -> tuple[Method, Outcome]:
    where = f"{plan.name} on the clip {clip.name}"
    try:
        method, outcome = next(outcomes)
    except StopIteration:
        raise TaskInputError(f"{where} ended without the method {next(iter(waiting))!r}.") from None
    except (WaveOpsError, TaskInputError, StorageError) as error:
        raise TaskInputError(f"{where}, method {next(iter(waiting))!r}: {error}") from error
    if method.name not in waiting:
        raise TaskInputError(f"{where} returned the method {method.name!r}, which was not requested.")
    unknown = sorted(set(outcome.scores) - {measure.name for measure in comparison(plan.name).measures})
    if unknown:
        raise TaskInputError(f"{where}, method {method.name!r}: {unknown[0]!r} is not a metric of the comparison.")
    return method, outcome


def _store(artifact: Artifact, outcome: Outcome, clip: EvaluationClip, *, seconds: float) -> None:
    """Store an outcome; scores that are not finite become null."""
    films = {RESULT: outcome.frames, REFERENCE: outcome.reference}
    if outcome.frames is not None:
        reference = clip.frames if outcome.reference is None else outcome.reference
        films[DIFFERENCE] = amplified_difference(outcome.frames, reference)
    for name, frames in films.items():
        if frames is not None:
            with artifact.local_output(name) as path:
                write_film(path, frames)
    scores = {name: float(score) for name, score in outcome.scores.items()}
    finite = {name: score if math.isfinite(score) else None for name, score in scores.items()}
    artifact.complete({"scores": finite, "seconds": round(seconds, 3)})
