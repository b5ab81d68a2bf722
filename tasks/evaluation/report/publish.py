"""Write the results of a run to a folder, and show them in Prefect."""

from __future__ import annotations

import os
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from storage.files import write_atomic
from tasks.errors import TaskInputError
from tasks.evaluation.plan import EvaluationPlan
from tasks.evaluation.report.jsonl import json_lines, result_records
from tasks.evaluation.report.page import report_html, table_markdown
from tasks.evaluation.results import Results, collect_results, metrics_parquet

__all__ = ["LINES", "METRICS", "REPORT", "TABLE", "check_folder", "publish_results", "write_results"]

METRICS, TABLE, REPORT, LINES = "metrics.parquet", "table.md", "report.html", "lines.jsonl"


def check_folder(folder: Path) -> None:
    """Check that results can be written to a folder, before anything runs.

    Raises:
        TaskInputError: if they cannot.
    """
    existing = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise TaskInputError(f"The output {folder} cannot be written: {existing} is not a writable folder.")


def write_results(plan: EvaluationPlan, folder: Path) -> Results:
    """Write metrics.parquet, lines.jsonl, table.md and report.html, each atomically.

    Raises:
        TaskInputError: if the folder cannot be written.
        WorkspaceError: if an outcome is missing from the workspace.
    """
    results = collect_results(plan)
    texts = {
        LINES: json_lines(result_records(results)),
        TABLE: table_markdown(plan, results),
        REPORT: report_html(plan, results),
    }
    files = {METRICS: metrics_parquet(results)} | {name: text.encode() for name, text in texts.items()}
    try:
        for name, data in files.items():
            write_atomic(folder / name, data)
    except OSError as error:
        raise TaskInputError(
            f"{folder} cannot be written ({error.strerror}); the outcomes stay in the workspace."
        ) from error
    return results


@task(
    name="publish",
    tags=["wave", "cpu"],
    task_run_name="Write tables and report",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def publish_results(plan: EvaluationPlan, folder: str) -> Results:
    """Write the results, and show the tables as an artifact in Prefect."""
    results = write_results(plan, Path(folder))
    create_markdown_artifact(table_markdown(plan, results), key=f"evaluation-{plan.name}", description=results.title)
    return results
