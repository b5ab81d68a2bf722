"""The evaluation flow: plan, run every clip, publish."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.placement import ConfiguredTaskRunner, configure_runner, placed
from flows.planning import plan_evaluation_request
from flows.settings import WaveSettings, load_settings
from storage.workspace import Workspace
from tasks.cancel import cancellable_flow, wait_for_future
from tasks.evaluation.plan import EvaluationPlan, planned_clips
from tasks.evaluation.report.publish import publish_results
from tasks.evaluation.request import EvaluationRequest
from tasks.evaluation.results import Results
from tasks.evaluation.run import evaluate_clip
from tasks.logs import send_logs_to_run

__all__ = ["evaluate"]


def _run_name() -> str:
    parameter: Any = flow_run.parameters["request"]
    request = EvaluationRequest(**parameter) if isinstance(parameter, dict) else parameter
    with suppress(ValueError):  # the flow plans again, and raises it
        count = len(planned_clips(request))
        return f"{request.comparison} on {count} clip{'s' if count > 1 else ''}"
    return str(request.comparison)


@flow(name="evaluate", flow_run_name=_run_name, task_runner=ConfiguredTaskRunner())
def evaluate(request: EvaluationRequest, settings: WaveSettings | None = None, output: str | None = None) -> Results:
    """Run a comparison.

    Args:
        request: the comparison, its clips and its networks.
        settings: workspace, device and concurrency; read from the environment (WAVE_...) by default.
        output: the folder for metrics, tables and report; evaluation/<comparison> by default.

    Returns:
        The results, as written to the folder.

    Raises:
        TaskInputError: if the request cannot be planned, or a method fails on a clip; the outcomes of the other clips
            are stored before.
        WorkspaceError: if the workspace cannot be written.
    """
    send_logs_to_run()
    settings = settings or load_settings()
    configure_runner(settings)
    plan = plan_evaluation_request(request, settings)
    Workspace.open(plan.workspace).check_writable()
    return cancellable_flow(lambda: _run(plan, settings, output or f"evaluation/{request.comparison}"))


def _run(plan: EvaluationPlan, settings: WaveSettings, output: str) -> Results:
    with placed(settings, "gpu" if plan.resources.device.startswith("cuda") else "cpu"):
        clips = [evaluate_clip.submit(plan, clip) for clip in plan.clips]
    for clip in clips:  # if one fails, the others still run and store their outcomes
        wait_for_future(clip)
    for clip in clips:
        clip.result()
    return publish_results(plan, output)
