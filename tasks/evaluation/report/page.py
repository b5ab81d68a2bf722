"""The report page: self-contained HTML with tables, plots and films."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.evaluation.comparisons.registry import comparison
from tasks.evaluation.plan import EvaluationPlan
from tasks.evaluation.previews import GAIN
from tasks.evaluation.report.film_selection import choose_clips, choose_methods, shown_clips
from tasks.evaluation.report.plots import difference_plot, distribution_plot
from tasks.evaluation.report.tables import differences_table, group_tables, markdown, means_table, targets_table
from tasks.evaluation.request import command_line
from tasks.evaluation.results import Results

__all__ = ["describe_setup", "report_html", "table_markdown"]

_TEMPLATE = "report.html.j2"
_COLUMNS_PER_TABLE = 4
"""Of numbers; what is more stands in tables below, so that a page of 1280 pixels cuts nothing off."""
_PACKAGES = ("wave-edit", "torch", "diffusers", "transformers", "numpy", "opencv-python", "scikit-image")


def describe_setup(plan: EvaluationPlan, results: Results) -> tuple[tuple[str, str], ...]:
    """Return pairs of label and text with everything that is needed to repeat the run."""
    resources, request = plan.resources, plan.request
    groups = ", ".join(f"{len(clips)} {group}" for group, clips in results.groups.items())
    return (
        ("command", command_line(request)),
        ("comparison", f"{plan.name}, version {comparison(plan.name).version}, against {results.baseline}"),
        ("clips", f"{len(plan.clips)}: {groups}" + (f" (from {request.manifest})" if request.manifest else "")),
        ("seed", str(resources.seed)),
        ("model", f"{resources.model.name}, {resources.model.digest}"),
        ("ControlNet", "none" if resources.controlnet is None else resources.controlnet.digest),
        ("flow", f"{resources.flow.name} {resources.flow.digest}".strip()),
        ("LPIPS", resources.lpips_weights or "left out"),
        ("CLIP", resources.clip_model or "left out"),
        ("networks", f"{resources.dtype} on {resources.device}"),
        ("versions", ", ".join(_versions())),
        ("computed in", f"{results.seconds:.0f} s, stored outcomes included"),
        ("written", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
    )


def table_markdown(plan: EvaluationPlan, results: Results) -> str:
    """Format set-up, targets, means, paired differences and groups as Markdown."""
    setup = "\n".join(
        f"- {label}: {f'`{text}`' if label == 'command' else text}" for label, text in _repeatable_setup(plan, results)
    )
    parts = [f"# {results.title}", setup]
    targets, differences = targets_table(results), differences_table(results)
    for table in (targets, means_table(results), differences if differences.rows else None, *group_tables(results)):
        if table is not None:
            parts += [f"## {table.title}", markdown(table)] + ([table.note] if table.note else [])
    return "\n\n".join(parts) + "\n"


def report_html(plan: EvaluationPlan, results: Results) -> str:
    """Render the report as one self-contained page."""
    methods, chosen, shown = choose_methods(results), choose_clips(results), shown_clips(plan, results)
    distribution_plots = [distribution_plot(results, measure, methods) for measure in results.measured]
    difference_plots = [difference_plot(results, measure) for measure in results.measured]
    page = _environment().get_template(_TEMPLATE)
    return page.render(
        results=results,
        setup=describe_setup(plan, results),
        targets=targets_table(results),
        means=means_table(results),
        differences=differences_table(results),
        groups=group_tables(results),
        missing=[measure.name for measure in results.measures if measure not in results.measured],
        methods=methods,
        methods_left_out=len(methods) < sum(not method.reference for method in results.methods),
        difference_plots=[Markup(plot) for plot in difference_plots if plot],  # noqa: S704  (matplotlib's, with escaped names)
        distribution_plots=[Markup(plot) for plot in distribution_plots if plot],  # noqa: S704
        clips=shown,
        clips_left_out=_left_out(len(plan.clips), len(chosen), len(shown)),
        gain=GAIN,
        columns_per_table=_COLUMNS_PER_TABLE,
    )


def _left_out(all_clips: int, chosen: int, shown: int) -> str:
    text = "" if chosen == all_clips else f"{shown} of {all_clips} clips are shown, the baseline's worst first."
    return text + (" More would make the page too large." if shown < chosen else "")


def _repeatable_setup(plan: EvaluationPlan, results: Results) -> tuple[tuple[str, str], ...]:
    """Return the set-up without times, so that equal results give equal tables."""
    return tuple(pair for pair in describe_setup(plan, results) if pair[0] not in {"written", "computed in"})


def _versions() -> list[str]:
    found = [f"python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
