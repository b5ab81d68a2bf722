"""Run the methods of a comparison on one clip, keeping each outcome as soon as it is there."""

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
from tasks.errors import TaskInputError
from tasks.evaluation.comparison import EvaluationClip, Method, Outcome
from tasks.evaluation.comparisons.registry import comparison
from tasks.evaluation.plan import EvaluationPlan, PlannedClip, load_planned_clip
from tasks.evaluation.report.previews import amplified_difference, write_film
from tasks.progress import stage_progress
from tasks.stage import RETRIES
from wave_ops.errors import WaveOpsError

__all__ = ["DIFFERENCE", "RESULT", "WANTED", "evaluate_clip", "measure_clip"]

RESULT = "result.mp4"
"""What a method made, in its outcome's artifact."""
WANTED = "wanted.mp4"
"""What it should have made; only where that is not the source."""
DIFFERENCE = "difference.mp4"
"""Its difference from what was wanted, amplified."""


def measure_clip(plan: EvaluationPlan, clip: PlannedClip) -> int:
    """Run the methods whose outcome the workspace does not hold; tell how many that were.

    Raises:
        TaskInputError: one sentence that names clip and method, if a method cannot deal with the clip.
    """
    workspace = Workspace.open(plan.workspace)
    outcomes = {method.name: workspace.artifact(plan.ref(clip, method)) for method in plan.methods}
    missing = [method for method in plan.methods if not _is_kept(outcomes[method.name])]
    done = len(plan.methods) - len(missing)
    with stage_progress(plan.stage(clip), total=len(plan.methods), done=done, part=clip.name) as progress:
        if not missing:
            return 0
        loaded, start = load_planned_clip(plan.request, clip), time.perf_counter()
        for method, outcome in _checked(plan, loaded, missing):
            _keep(outcomes[method.name], outcome, loaded, seconds=time.perf_counter() - start)
            done, start = done + 1, time.perf_counter()
            progress.report(done)
    return len(missing)


def _is_kept(outcome: Artifact) -> bool:
    """Tell whether an outcome is there; one without a figure is thrown away: what it lacked may be there by now."""
    if outcome.is_complete() and not outcome.metadata["scores"]:
        outcome.discard()
    return outcome.is_complete()


def _run_name(*, parameters: Mapping[str, Any]) -> str:
    title: str = parameters["plan"].stage(parameters["clip"]).title
    return title


# Not Prefect's cache but the workspace tells what is there, method by method
evaluate_clip = task(
    name="evaluate clip",
    tags=["wave"],
    task_run_name=_run_name,  # type: ignore[arg-type]  # called with the parameters, by their name
    cache_policy=NO_CACHE,
    persist_result=False,
    **cast("Any", RETRIES),
)(measure_clip)


def _checked(plan: EvaluationPlan, clip: EvaluationClip, methods: Sequence[Method]) -> Iterator[tuple[Method, Outcome]]:
    """Give the outcomes as they come, every one that was asked for and no other."""
    waiting = {method.name: method for method in methods}
    # Closed whatever happens: a comparison may hold the model until its last outcome
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
        raise TaskInputError(f"{where} gave the method {method.name!r}, which was not asked for.")
    unknown = sorted(set(outcome.scores) - {measure.name for measure in comparison(plan.name).measures})
    if unknown:
        raise TaskInputError(f"{where}, method {method.name!r}: {unknown[0]!r} is no measure of the comparison.")
    return method, outcome


def _keep(artifact: Artifact, outcome: Outcome, clip: EvaluationClip, *, seconds: float) -> None:
    """Store an outcome; figures that are no finite numbers become null."""
    films = {RESULT: outcome.frames, WANTED: outcome.reference}
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
