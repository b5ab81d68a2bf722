"""Edit a data set: rows that are not complete, a few clips at a time, each a flow run of its own below this one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any, cast

from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import opaque

from flows.back_pressure import DiskWindow, free_disk
from flows.dataset_output import DatasetOutput, row_cells
from flows.planning import planned, planned_dataset
from flows.settings import WaveSettings, current_settings
from storage.claims import claim
from storage.cost_table import CostTable
from storage.inventory import collect, plan_collection, take_inventory, used_clips
from storage.job_table import JobTable
from storage.reference import ArtifactRef
from storage.status_table import STATES, RowState, StatusRecord, StatusTable, counts_text, row_key
from storage.workspace import Workspace, open_artifact
from tasks.artifacts import REPORT
from tasks.cancel import cancellable_flow, cancellable_task, raise_if_stopped
from tasks.failures import FailureBudget, error_kind, may_heal
from tasks.logs import send_logs_to_run
from tasks.planning.bulk import BulkPlan, PlannedRow, planned_again, row_plan
from tasks.planning.dataset import DatasetRequest, dataset_name
from tasks.planning.disk_note import dataset_disk_note
from tasks.planning.estimate import read_costs, result_sizes
from tasks.planning.manifest_table import table_text
from tasks.planning.row import manifest_columns
from tasks.progress import report_rows
from tasks.server_wait import wait_for_server

__all__ = ["DatasetResult", "edit_dataset"]

_SECONDS_BETWEEN_TABLES = 15.0
_SECONDS_BETWEEN_LOOKS = 0.5
_ROWS_SHOWN = 200
_DEATHS = 2  # of workers, while a row ran, until it is set aside
_ASIDE = "its worker died twice while it ran"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetResult:
    """The outcome of a run."""

    dataset: str
    counts: dict[RowState, int]
    failed: str = ""
    """Path of the manifest of failed rows; empty without any."""
    stopped: str = ""
    """Why the run stopped before its end; empty if it did not."""

    def __str__(self) -> str:
        text = counts_text(self.counts)
        return f"{text} (stopped: {self.stopped})" if self.stopped else text

    @property
    def exit_code(self) -> int:
        """0 if all rows are done, 1 if some failed, were cancelled or were left."""
        unfinished: tuple[RowState, ...] = ("failed", "quarantined", "cancelled", "running")
        return int(bool(self.stopped or any(self.counts[state] for state in unfinished)))


@dataclass(slots=True)
class _Run:
    """The state of one run of a data set."""

    request: DatasetRequest
    settings: WaveSettings
    bulk: BulkPlan
    output: DatasetOutput
    table: StatusTable
    budget: FailureBudget
    attempts: dict[tuple[str, int], int]
    window: DiskWindow
    suspects: set[tuple[str, int]] = field(default_factory=set)
    """Rows that ran when a worker died."""
    outcomes: dict[tuple[str, int], StatusRecord] = field(default_factory=dict)
    made: dict[tuple[str, int], PlannedRow] = field(default_factory=dict)
    """Rows that this run has computed, planned again with what decoding has found."""
    stopped: str = ""
    shown: float = 0.0

    def settle(self, record: StatusRecord, *, write: bool = True) -> None:
        """Note the end of a row."""
        self.outcomes[record.id, record.variant] = record
        if write:
            self.table.append(record)

    def state(self, item: PlannedRow) -> str:
        """Return the state of a row, empty while it has none."""
        record = self.outcomes.get(item.row.key)
        return "" if record is None else record.state


# Not a parameter of the task, since Prefect sends those to Dask's workers with each stage
_RUN: ContextVar[_Run] = ContextVar("run of a data set")


@task(
    name="edit row",
    task_run_name="{label}",
    tags=["wave"],
    cache_policy=NO_CACHE,
    persist_result=False,
)
def edit_row(label: str, item: PlannedRow) -> ArtifactRef:
    """Edit one row: a flow run of its own, so that its failure ends in its own state."""
    return _edit(item)


def _edit(item: PlannedRow) -> ArtifactRef:
    run = _RUN.get()
    from flows.edit_video import edit_video  # noqa: PLC0415  (takes seconds, and complete rows need none)

    plan = row_plan(item, run.bulk)
    with planned(plan):
        return cancellable_task(lambda: edit_video(plan.request, run.settings))


def _run_name() -> str:
    request: Any = flow_run.parameters["request"]
    fields = request if isinstance(request, dict) else request.model_dump()
    return f"{dataset_name(fields['source'])}"[:120]


@flow(name="edit-dataset", flow_run_name=_run_name, task_runner=cast("Any", ThreadPoolTaskRunner()))
def edit_dataset(request: DatasetRequest) -> DatasetResult:
    """Edit every row of a data set that is not complete.

    Args:
        request: the data set and how to run it.

    Returns:
        How many rows are in which state; `wave status` shows the rows.
    """
    send_logs_to_run()
    return cancellable_flow(lambda: _edit_rows(request))


def _edit_rows(request: DatasetRequest) -> DatasetResult:
    settings, name = current_settings(), dataset_name(request.source)
    workspace = Workspace.open(settings.workspace)
    table = StatusTable(workspace, name, run=str(flow_run.id or "local"))
    bulk = planned_dataset(request, settings, table=table)
    output = DatasetOutput(request=request, dataset=table.dataset, bulk=bulk)
    output.check()
    if note := dataset_disk_note(bulk):
        get_run_logger().warning(note)
    run = _Run(
        request=request,
        settings=settings,
        bulk=bulk,
        output=output,
        table=table,
        budget=FailureBudget(allowed=request.allowed_failures(len(bulk.rows))),
        attempts={},
        window=_disk_window(bulk, settings),
    )
    _record_known_rows(run)
    token = _RUN.set(run)
    try:
        _run_rows(run)
    except BaseException:  # a person or Prefect ended it: the rows in flight have not killed their workers
        _record_cancelled_rows(run)
        raise
    finally:
        _RUN.reset(token)
    result = _finish(run, workspace)
    get_run_logger().info("%s: %s", name, result)
    kind = "finished" if result.exit_code == 0 else "failing"
    emit_event(
        f"wave.dataset.{kind}",
        resource={"prefect.resource.id": f"wave.dataset.{name}", "prefect.resource.name": name},
        payload={**{str(state): count for state, count in result.counts.items()}, "text": str(result)},
    )
    return result


def _disk_window(bulk: BulkPlan, settings: WaveSettings) -> DiskWindow:
    if settings.disk_budget is None:
        return DiskWindow()
    costs = read_costs(Workspace.open(bulk.execution.workspace))
    return DiskWindow(sizes=result_sizes(bulk, costs), budget=settings.disk_budget)


def _record_known_rows(run: _Run) -> None:
    """Settle the rows that need no run: complete ones, faulty ones, and those that killed their workers."""
    known = {row_key(record): record for record in run.table.latest().to_dict("records")}
    unended = {row_key(record): record["unended"] for record in run.table.lost(1).to_dict("records")}
    run.suspects = set(unended)
    # They stay so until they change, or a run asks for them alone
    aside = {item.row.key for item in run.bulk.rows if _was_set_aside(item, known.get(item.row.key))}
    for item in run.bulk.rows:
        before = known.get(item.row.key)
        if not item.error and (conflict := run.output.conflict(item)):
            run.settle(_record(run, item, "failed", kind="input", message=conflict))
        elif item.complete:
            run.output.deliver(item)
            if before and (before["state"], before["digest"]) == ("done", item.identity["result"]):
                run.settle(_record(run, item, "skipped"), write=False)
            else:
                run.settle(_done(run, item))
        elif item.error:
            run.settle(_record(run, item, "failed", kind="input", message=item.error))
        elif item.row.key in aside and len(aside) < len(run.bulk.rows):
            run.settle(_record(run, item, "quarantined", message=_ASIDE), write=False)
        elif unended.get(item.row.key, 0) >= _DEATHS:
            run.settle(_record(run, item, "quarantined", message=_ASIDE))


def _was_set_aside(item: PlannedRow, before: Mapping[Any, Any] | None) -> bool:
    return before is not None and (before["state"], before["digest"]) == (
        "quarantined",
        item.identity.get("result", ""),
    )


def _run_rows(run: _Run) -> None:
    """Keep a few rows running until all have ended or the budget is spent.

    Rows that ran when a worker died come last, each alone: if it dies again, no other row is blamed for it.
    """
    to_run = [item for item in run.bulk.to_run if item.row.key not in run.outcomes]
    waiting = deque(sorted(to_run, key=lambda item: item.row.key in run.suspects))
    ended: SimpleQueue[tuple[PlannedRow, Any]] = SimpleQueue()
    running = 0
    while True:
        while waiting and running < _limit(run, waiting[0]) and _may_start(run, waiting[0]):
            item = waiting.popleft()
            run.window.start(item)
            _submit(run, item, ended)
            running += 1
        if not running:
            return
        item, future = _next(ended)
        running -= 1
        future.wait()  # its final state is there, but not yet read
        if _settle(run, item, future.state) == "again":
            _submit(run, item, ended)
            running += 1
        else:
            run.window.end(item)
            _tidy(run, item)
        _show(run)


def _limit(run: _Run, item: PlannedRow) -> int:
    """Return how many rows may run at the same time as the last one of them starts."""
    return 1 if item.row.key in run.suspects else run.settings.max_clips


def _next(ended: SimpleQueue[tuple[PlannedRow, Any]]) -> tuple[PlannedRow, Any]:
    """Wait for the next row that has ended, unless the run is cancelled."""
    while True:
        raise_if_stopped()
        with suppress(Empty):
            return ended.get(timeout=_SECONDS_BETWEEN_LOOKS)


def _may_start(run: _Run, item: PlannedRow) -> bool:
    """Return whether a row may start now; without free disk the run stops."""
    if not run.stopped and run.window.admits(item):
        run.stopped = free_disk(run.bulk.execution.workspace, reserve=run.settings.disk_reserve)
        return not run.stopped
    return False


def _record_cancelled_rows(run: _Run) -> None:
    items = [item for item in run.bulk.rows if item.row.key in run.attempts and item.row.key not in run.outcomes]
    run.table.append([_cancelled(run, item) for item in items])


def _cancelled(run: _Run, item: PlannedRow) -> StatusRecord:
    return _record(run, item, "cancelled", message="the run was cancelled")


def _submit(run: _Run, item: PlannedRow, ended: SimpleQueue[tuple[PlannedRow, Any]]) -> None:
    key = item.row.key
    wait_for_server()  # the row would fail without one, and lose an attempt
    run.attempts[key] = run.attempts.get(key, 0) + 1
    run.table.append(_record(run, item, "running"))
    future = edit_row.submit(_label(item), cast("Any", opaque(item)))
    future.add_done_callback(lambda ended_future: ended.put((item, ended_future)))


def _settle(run: _Run, item: PlannedRow, state: State[Any]) -> str:
    """Record how a row ended; return "again" for another attempt."""
    if state.is_completed():
        try:
            item = run.made[item.row.key] = planned_again(item, run.bulk)
            run.output.deliver(item)
            run.budget.succeed()
            run.settle(_done(run, item))
        except ValueError as error:
            return _fail(run, item, error)
        return "ended"
    if state.is_cancelled():  # this row alone: in Prefect each is a run of its own
        run.settle(_cancelled(run, item))
        return "ended"
    found: Any = state.result(raise_on_failure=False)
    return _fail(run, item, found if isinstance(found, BaseException) else RuntimeError(state.message or state.name))


def _fail(run: _Run, item: PlannedRow, error: BaseException) -> str:
    kind, attempts = error_kind(error), run.attempts[item.row.key]
    message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    run.table.append(_record(run, item, "failed", kind=kind, message=message))
    if may_heal(kind) and attempts < run.request.attempts and not run.stopped:
        return "again"
    run.settle(_record(run, item, "failed", kind=kind, message=message), write=False)
    get_run_logger().error("%s failed: %s", _label(item), message)
    run.stopped = run.stopped or run.budget.fail(kind, message)
    return "ended"


def _tidy(run: _Run, item: PlannedRow) -> None:
    """Remove what the request does not keep of a clip, once all rows of that clip are done."""
    if run.request.keep == "all":
        return
    clip = item.identity["source"]
    if any(run.state(row) not in {"done", "skipped"} for row in run.bulk.rows_of(clip)):
        return
    workspace, folder = Workspace.open(run.bulk.execution.workspace), f"clips/{clip}"
    inventory, used = take_inventory(workspace, folder=folder), used_clips(workspace, below=folder)
    # No age is asked for: this run has just finished with the clip
    collect(workspace, plan_collection(inventory, keep=run.request.keep, in_use=used, older_than=timedelta(0)))


def _done(run: _Run, item: PlannedRow) -> StatusRecord:
    report = open_artifact(item.report).read_json(REPORT) if item.report is not None else {}
    stages = report.get("stages", {})
    return _record(
        run,
        item,
        "done",
        seconds={name: cost["seconds"] for name, cost in stages.items()},
        metrics=report.get("scores", {}),
    )


def _record(run: _Run, item: PlannedRow, state: Any, *, kind: str = "", message: str = "", **more: Any) -> StatusRecord:
    identity = {f"identity_{name}": value for name, value in item.identity.items()}
    return StatusRecord(
        id=item.row.id,
        variant=item.row.variant,
        state=state,
        attempts=run.attempts.get(item.row.key, 0),
        error_kind=kind,
        message=message,
        digest=item.identity.get("result", ""),
        output=run.output.location(item) or (f"{item.video.workspace}/{item.video.path}" if item.video else ""),
        manifest={**row_cells(item.row), **identity},
        **more,
    )


def _label(item: PlannedRow) -> str:
    return item.row.id if not item.row.variant else f"{item.row.id}, variant {item.row.variant}"


def _show(run: _Run, *, last: bool = False) -> None:
    """Publish the rows as a table in Prefect's UI, at most every few seconds, and report how many have ended."""
    report_rows(len(run.outcomes), len(run.bulk.rows))
    now = time.monotonic()
    if not last and now - run.shown < _SECONDS_BETWEEN_TABLES:
        return
    run.shown = now
    # Failures first: they are what a person looks for
    ended = sorted(run.outcomes.values(), key=lambda record: record.state in {"done", "skipped"})
    rows = [
        {"id": record.id, "variant": record.variant, "state": record.state, "message": record.message}
        for record in ended[:_ROWS_SHOWN]
    ]
    create_table_artifact(rows, key="dataset-rows", description=f"{len(ended)} of {len(run.bulk.rows)} rows")


def _finish(run: _Run, workspace: Workspace) -> DatasetResult:
    _show(run, last=True)
    counts: dict[RowState, int] = dict.fromkeys(STATES, 0)
    for record in run.outcomes.values():
        counts[record.state] += 1
    counts["running"] = len(run.bulk.rows) - len(run.outcomes)
    failed = _write_failed(run, workspace)
    _write_output(run, workspace)
    run.table.compact()
    CostTable(workspace).compact()
    JobTable(workspace).compact()
    return DatasetResult(dataset=run.table.dataset, counts=counts, failed=failed, stopped=run.stopped)


def _write_failed(run: _Run, workspace: Workspace) -> str:
    """Write the failed rows as a manifest with the reasons; return its path or URL, empty without failures."""
    key = f"tables/status/{run.table.dataset}/failed.csv"
    bad = [item.row for item in run.bulk.rows if run.state(item) in {"failed", "quarantined"}]
    if not bad:
        workspace.files.delete([key])
        return ""
    columns = {name: list(values) for name, values in manifest_columns(bad).items()}
    columns["error_kind"] = [run.outcomes[row.key].error_kind for row in bad]
    columns["error"] = [run.outcomes[row.key].message for row in bad]
    workspace.files.write(key, table_text(columns, ".csv").encode())
    return f"{workspace.url}/{key}"


def _write_output(run: _Run, workspace: Workspace) -> None:
    """Write the table that names the videos of the output folder, or its tar files."""
    if run.request.output is None:
        return
    finished = [item for item in run.bulk.rows if run.state(item) in {"done", "skipped"}]
    made = [run.made.get(item.row.key, item) for item in finished]
    with claim(workspace, f"outputs/{run.table.dataset}"):
        run.output.write_tables(made)
