"""Compare methods on the same clips: plan, run every clip, publish the results."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from prefect import flow
from prefect.futures import wait
from prefect.runtime import flow_run

from flows.placement import ConfiguredTaskRunner, configure_runner, placed
from flows.planning import plan_evaluation_request
from flows.settings import WaveSettings, load_settings
from storage.workspace import Workspace
from tasks.evaluation.plan import planned_clips
from tasks.evaluation.publish import publish_results
from tasks.evaluation.request import EvaluationRequest
from tasks.evaluation.results import Results
from tasks.evaluation.run import evaluate_clip

__all__ = ["evaluate"]


def _run_name() -> str:
    given: Any = flow_run.parameters["request"]
    request = EvaluationRequest(**given) if isinstance(given, dict) else given
    with suppress(ValueError):  # raised by the flow itself, which plans again
        count = len(planned_clips(request))
        return f"{request.comparison} on {count} clip{'s' if count > 1 else ''}"
    return str(request.comparison)


@flow(name="evaluate", flow_run_name=_run_name, task_runner=ConfiguredTaskRunner())
def evaluate(request: EvaluationRequest, settings: WaveSettings | None = None, output: str | None = None) -> Results:
    """Run a comparison.

    Args:
        request: which one, on which clips, with which networks.
        settings: where and on what; read from the environment (WAVE_...) by default.
        output: the folder for metrics, tables and report; evaluation/<comparison> by default.

    Returns:
        What was found, as it was written to the folder.
    """
    settings = settings or load_settings()
    configure_runner(settings)
    plan = plan_evaluation_request(request, settings)
    Workspace.open(plan.workspace).check_writable()
    with placed(settings, "gpu" if plan.resources.device.startswith("cuda") else "cpu"):
        clips = [evaluate_clip.submit(plan, clip) for clip in plan.clips]
    wait(clips)  # a clip that fails does not stop the others: their outcomes are kept
    for clip in clips:
        clip.result()
    return publish_results(plan, output or f"evaluation/{request.comparison}")
