"""What must be true after a rehearsal, measured from the workspace, the outputs and Prefect's server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flows.rehearsal.dataset import BAD_ROWS, KILLER, RehearsalSet
from flows.rehearsal.drill import Story
from storage.inventory import take_inventory
from storage.job_table import JobTable
from storage.status_table import StatusTable
from storage.workspace import Workspace
from tasks.evaluation.bench.measurements import Measurement
from tasks.evaluation.comparisons.comparison import Measure

__all__ = ["BENCH", "TITLE", "measure_story"]

BENCH: Final = "rehearse"
TITLE: Final = "Is everything that can be done complete, and nothing computed twice, whatever dies meanwhile?"


def measure_story(title: str, story: Story, data: RehearsalSet) -> Iterator[Measurement]:
    """Yield what a rehearsal has shown.

    Args:
        title: names the parts that it ran on.
        story: what happened.
        data: the data set.
    """
    workspace = Workspace.open(story.workspace)
    rows = _rows(workspace, data)
    values = {**_killed(story), **_states(rows, data), **_history(workspace), **_outputs(story, data)}
    values |= _scheduled(workspace, story) | {
        _count("runs marked as crashed and resumed"): story.crashed,
        Measure(name="time", unit="s"): story.seconds,
        Measure(name="time of a quiet run", unit="s"): story.quiet_seconds,
    }
    for measure, value in values.items():
        yield Measurement(measure=measure, subject=title, value=float(value))


def _all(name: str, count: int, unit: str = "rows") -> Measure:
    return Measure(name=name, unit=unit, better="higher", target=float(count))


def _none(name: str, unit: str = "rows") -> Measure:
    return Measure(name=name, unit=unit, better="lower", target=0.0)


def _count(name: str, unit: str = "") -> Measure:
    return Measure(name=name, unit=unit)


def _rows(workspace: Workspace, data: RehearsalSet) -> dict[str, Mapping[str, Any]]:
    latest = StatusTable(workspace, data.manifest.stem).latest()
    return {
        str(record["id"]): {str(key): value for key, value in record.items()} for record in latest.to_dict("records")
    }


def _killed(story: Story) -> dict[Measure, float]:
    return {
        _all("workers killed between PENDING and RUNNING", 1, ""): story.pending,
        _all("workers killed in a GPU stage", 1, ""): bool(story.stage),
        _all("servers killed", 1, ""): story.server,
        _all("deaths by one row", 2, ""): story.deaths,
    }


def _states(rows: Mapping[str, Mapping[str, Any]], data: RehearsalSet) -> dict[Measure, float]:
    done = sum(rows[name]["state"] == "done" for name in data.good if name in rows)
    bad = sum(
        rows[name]["state"] == "failed" and reason in rows[name]["message"]
        for name, reason in BAD_ROWS.items()
        if name in rows
    )
    aside = {name for name, record in rows.items() if record["state"] == "quarantined"}
    return {
        _all("complete", len(data.good)): done,
        _all("bad rows failed with their reason", len(BAD_ROWS)): bad,
        _all("set aside: the row that kills", 1): KILLER in aside,
        _none("set aside: others"): len(aside - {KILLER}),
    }


def _history(workspace: Workspace) -> dict[Measure, float]:
    jobs = JobTable(workspace).read()["job"]
    complete = {artifact.path for artifact in take_inventory(workspace).artifacts if artifact.complete}
    return {
        _count("computed", "jobs"): len(jobs),
        _none("computed twice", "jobs"): int(jobs.duplicated().sum()),
        _none("complete results without a record", "results"): len(complete - set(jobs)),
    }


def _outputs(story: Story, data: RehearsalSet) -> dict[Measure, float]:
    found, quiet = _digests(story.output), _digests(story.quiet_output)
    same = sum(found.get(name) == quiet[name] for name in data.good if name in quiet)
    return {
        _all("as in a quiet run", len(data.good), "videos"): same,
        _none("of rows that are not complete", "videos"): len(found.keys() - {*data.good}),
    }


def _digests(folder: str) -> dict[str, str]:
    """Return the digest of each video of an output folder, by the id of its row."""
    files = Workspace.open(folder).files
    names = sorted(name for name in files.sizes() if name.endswith(".mp4"))
    found = files.read_many(names)
    return {name.removesuffix(".mp4"): hashlib.sha256(data).hexdigest() for name, data in found.items()}


def _scheduled(workspace: Workspace, story: Story) -> dict[Measure, float]:
    return {
        _all("scheduled run completed", 1, ""): story.scheduled_state == "COMPLETED",
        _none("flow runs below the scheduled run", ""): story.scheduled_children,
        _none("computed by the scheduled run", "jobs"): len(JobTable(workspace).read()) - story.jobs_before,
    }
