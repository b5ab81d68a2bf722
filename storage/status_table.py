"""Status tables: the state of every row of a data set, appended as rows start and end.

A record says that a row of the data set's manifest started or ended. Records are never changed: they are appended to
Parquet files under `tables/status/<data set>/`, by any number of processes and machines at once.

Columns: id, variant, state, attempts, error_kind, message, digest, output, finished, run; `seconds_<stage>`,
`metric_<name>` and `manifest_<column>` where records have them; and `record`, the key, which sorts by time.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa

from storage._layout import checked_path
from storage._record_files import KEY, RecordFiles, key_time
from storage.errors import WorkspaceError
from storage.workspace import Workspace

if TYPE_CHECKING:  # pandas takes a second to import, and only readers need it
    import pandas as pd

__all__ = [
    "STATES",
    "RowState",
    "StatusRecord",
    "StatusTable",
    "counts_text",
    "failed_manifest",
    "row_key",
    "state_counts",
    "status_datasets",
]

RowState = Literal["done", "skipped", "failed", "quarantined", "cancelled", "running"]
STATES: tuple[RowState, ...] = get_args(RowState)
_FOLDER = "tables/status"
_MANIFEST, _REASONS = "manifest_", {"error_kind": "error_kind", "message": "error"}
_TEXT, _INTEGER, _NUMBER, _TIME = pa.string(), pa.int64(), pa.float64(), pa.timestamp("us", tz="UTC")
_SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("variant", _INTEGER),
        ("state", _TEXT),
        ("attempts", _INTEGER),
        ("error_kind", _TEXT),
        ("message", _TEXT),
        ("digest", _TEXT),
        ("output", _TEXT),
        ("finished", _TIME),
        ("run", _TEXT),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRecord:
    """One record of a row: it starts (state `running`) or it has ended (any other state)."""

    id: str
    state: RowState
    variant: int = 0
    attempts: int = 0
    """Attempts so far, with the one that starts or has ended."""
    error_kind: str = ""
    message: str = ""
    """Why it failed, was skipped or was set aside."""
    digest: str = ""
    """Digest of the result."""
    output: str = ""
    """Path or URL of the result."""
    finished: datetime | None = None
    """When it ended; by default, for a row that has ended, when the record is appended."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Duration of each stage, by its name."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    manifest: Mapping[str, object] = field(default_factory=dict)
    """The row of the manifest, by column."""

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise WorkspaceError(f"the state of a row is one of {', '.join(STATES)}, got {self.state!r}")


class StatusTable:
    """The status of the rows of one data set."""

    def __init__(self, workspace: Workspace, dataset: str, *, run: str = "local") -> None:
        """Open a table; write nothing and create nothing.

        Args:
            workspace: workspace of the table.
            dataset: the data set's name, one word.
            run: name of the run that appends, one word.

        Raises:
            WorkspaceError: if a name is not one word.
        """
        self.dataset, self.run = _word(dataset), _word(run)
        self._records = RecordFiles(files=workspace.files, folder=f"{_FOLDER}/{dataset}", writer=run)

    def append(self, records: StatusRecord | Iterable[StatusRecord]) -> None:
        """Append records, all of them or, if the process dies, none; safe from several threads and processes.

        Before a row starts append `running`, and after each attempt how it ended: an attempt without an end counts as
        one that killed its worker.
        """
        several = [records] if isinstance(records, StatusRecord) else list(records)
        if several:
            self._records.append(_table(several, run=self.run))

    def history(self) -> pd.DataFrame:
        """Return all records, the oldest first.

        Records of one process are in the order in which it appended them, those of several machines in the order of
        their clocks.

        Raises:
            WorkspaceError: if a file is damaged.
        """
        return _frame(self._records.read())

    def latest(self) -> pd.DataFrame:
        """Return the last record of each row (id and variant), the row that changed last at the end.

        Raises:
            WorkspaceError: if a file is damaged.
        """
        return self.history().drop_duplicates(["id", "variant"], keep="last", ignore_index=True)

    def lost(self, limit: int = 2) -> pd.DataFrame:
        """Return the rows that were started and not ended `limit` times or more since they last ended.

        These have killed their workers, one after the other. A row that runs at present counts as started too: ask
        before its next attempt is appended.

        Returns:
            The last record of each, with the number of its attempts that did not end in the column `unended`.

        Raises:
            WorkspaceError: if a file is damaged.
        """
        history = self.history()
        row = [history["id"], history["variant"]]
        ended = (history["state"] != "running").astype(int)
        unended = 1 - ended[::-1].groupby(row).cummax()[::-1]  # 1 from a row's last end on
        history["unended"] = unended.groupby(row).transform("sum")
        latest = history.drop_duplicates(["id", "variant"], keep="last", ignore_index=True)
        return latest[latest["unended"] >= limit].reset_index(drop=True)

    def running(self, *, within: timedelta) -> pd.DataFrame:
        """Return the last record of each row that was started and has not ended, by the clocks of those that append.

        Args:
            within: rows that were started longer ago are left out: their process has died.

        Raises:
            WorkspaceError: if a file is damaged.
        """
        latest = self.latest()
        begun = latest[latest["state"] == "running"]
        since = datetime.now(UTC) - within
        return begun[[key_time(key) >= since for key in begun[KEY]]].reset_index(drop=True)

    def compact(self) -> int:
        """Merge the files of many appends into one; return how many files were removed.

        Safe at any time: next to appends, reads and other compactions, and if the process is killed.

        Raises:
            WorkspaceError: if a file is damaged.
        """
        return self._records.compact()


def status_datasets(workspace: Workspace) -> list[str]:
    """Return the names of the data sets that have a status table in the workspace."""
    return sorted({key.partition("/")[0] for key in workspace.files.sizes(_FOLDER) if "/" in key})


def failed_manifest(
    latest: pd.DataFrame, manifest_columns: Sequence[str], *, states: Collection[str] = ("failed",)
) -> pd.DataFrame:
    """Return the manifest of the rows that failed, with the reasons, ready to be run again.

    Args:
        latest: from `StatusTable.latest`.
        manifest_columns: columns of the manifest, in its order.
        states: which rows to return; by default those set aside are left out, since they would kill their workers
            again.

    Returns:
        One row for each id, whichever and however many of its variants failed: the manifest's columns as they were,
        preceded by the id if it is not one of them, then `error_kind` and `error` of the first variant that failed.
    """
    failed = latest[latest["state"].isin(states)].sort_values(["id", "variant"], kind="stable").drop_duplicates("id")
    # A manifest that was made here has reasons of an earlier run
    own = [column for column in manifest_columns if column not in _REASONS.values()]
    headings = {} if "id" in own else {"id": "id"}
    headings |= {f"{_MANIFEST}{column}": column for column in own} | _REASONS
    return failed.reindex(columns=list(headings)).rename(columns=headings).reset_index(drop=True)


def row_key(record: Mapping[Any, Any]) -> tuple[str, int]:
    """Return the id and the variant of a record that was read."""
    return str(record["id"]), int(record["variant"])


def state_counts(latest: pd.DataFrame) -> dict[RowState, int]:
    """Return how many rows are in each state."""
    return {state: int((latest["state"] == state).sum()) for state in STATES}


def counts_text(counts: Mapping[RowState, int]) -> str:
    """Return the numbers of rows in words: "148 done, 4 skipped, 2 failed", and those set aside or running if any."""
    always = ("done", "skipped", "failed")
    return ", ".join(f"{counts[state]} {state}" for state in STATES if state in always or counts[state])


def _word(name: str) -> str:
    if "/" in checked_path(name):
        raise WorkspaceError(f"the name of a data set or a run must be one word, got {name!r}")
    return name


def _table(records: Sequence[StatusRecord], *, run: str) -> pa.Table:
    now = datetime.now(UTC)
    rows = [_fixed_columns(record, now) | {"run": run} for record in records]
    columns = {name: pa.array([row[name] for row in rows], _SCHEMA.field(name).type) for name in _SCHEMA.names}
    columns |= _columns("seconds_", [_numbers(record.seconds) for record in records], kind=_NUMBER)
    columns |= _columns("metric_", [_numbers(record.metrics) for record in records], kind=_NUMBER)
    columns |= _columns(_MANIFEST, [record.manifest for record in records])
    return pa.table(columns)


def _fixed_columns(record: StatusRecord, now: datetime) -> dict[str, Any]:
    values = {name: _plain(getattr(record, name)) for name in _SCHEMA.names if name != "run"}
    return values if record.state == "running" or record.finished else values | {"finished": now}


def _numbers(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else float(value) for name, value in values.items()}


def _columns(
    prefix: str, rows: Sequence[Mapping[str, object]], *, kind: pa.DataType | None = None
) -> dict[str, pa.Array]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {f"{prefix}{_plain(name)}": _array([row.get(name) for row in rows], kind) for name in names}


def _array(values: Sequence[object], kind: pa.DataType | None) -> pa.Array:
    """Build a column; values without a common type become text."""
    plain = [_plain(value) for value in values]
    try:
        return pa.array(plain, kind, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if value is None else str(value) for value in plain], _TEXT)


def _plain(value: object) -> object:
    """Return a value that fits into a cell: lists and objects of a manifest as JSON, names of files as valid text."""
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str)
    # A path with bytes that are not UTF-8 has surrogates in Python
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _frame(records: pa.Table) -> pd.DataFrame:
    """Return records as a frame with all fixed columns, in their order."""
    for column in _SCHEMA:
        if column.name not in records.column_names:
            records = records.append_column(column, pa.nulls(len(records), column.type))
    others = [name for name in records.column_names if name not in (*_SCHEMA.names, KEY)]
    # By default an integer next to an empty cell would become 3.0, which is not the manifest's value
    frame: pd.DataFrame = records.select([*_SCHEMA.names, *others, KEY]).to_pandas(integer_object_nulls=True)
    return frame
