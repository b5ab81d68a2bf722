"""`wave status` and `wave gc`: the state of data sets, and the removal of intermediate results."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.filesize import decimal
from rich.table import Table as RichTable
from rich.text import Text

from flows.cli.console import STDERR, STDOUT, TracebacksOption, WorkspaceOption, app, read_settings, say
from tasks.errors import TaskInputError

if TYPE_CHECKING:
    import pandas as pd

    from storage.inventory import Choice, Collection, Inventory, Keep
    from storage.workspace import Workspace

__all__ = ["parse_age", "parse_size"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_ROW_TIME = timedelta(days=1)  # after which a row that runs is taken for dead
_SHOWN = 3  # ids for each cause
_PREFIX = 6  # characters of a digest that name it


@app.command()
def status(
    dataset: Annotated[str | None, typer.Argument(help="A data set; without it all data sets are listed.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per row, or per data set, and nothing else.")
    ] = False,
    workspace: WorkspaceOption = None,
    verbose: TracebacksOption = False,
) -> None:
    """Print how far data sets are: rows by state, and the causes of those that failed."""
    from storage.status_table import counts_text, state_counts

    opened = _open(workspace)
    if dataset is None:
        _list_datasets(opened, as_json=as_json)
        return
    rows = _latest(opened, dataset)
    if as_json:
        _print_json(_objects(rows))
        return
    unfinished = rows[rows["state"].isin(["failed", "quarantined"])]
    if len(unfinished):
        STDOUT.print(_table(("state", "cause", "rows", "for example", "ids"), _causes(unfinished), numbers=("rows",)))
    say(counts_text(state_counts(rows)))


@app.command()
def gc(
    keep: Annotated[
        str, typer.Option(metavar="WHAT", help="What stays: results (video, report), edits (frames too) or all.")
    ] = "edits",
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Only of clips not written to for so long (7d, 12h), finished or not."),
    ] = None,
    larger_than: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Only artifacts of this size or more (1GB, 500MB).")
    ] = None,
    clip: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only of this clip, by name or digest; may be repeated.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only clips of this data set; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be freed, and free nothing.")] = False,
    workspace: WorkspaceOption = None,
    verbose: TracebacksOption = False,
) -> None:
    """Free what no finished result needs: by default of clips that are finished and were not written to for an hour.

    What a running job uses is never freed.
    """
    age, size = None if older_than is None else parse_age(older_than), parse_size(larger_than or "0")
    opened = _open(workspace)
    from storage.claims import remove_dead_claims
    from storage.inventory import collect, plan_collection, take_inventory

    with STDERR.status("Listing the workspace"):
        inventory = take_inventory(opened)
        clips = _chosen_clips(opened, inventory, clip=clip or (), dataset=dataset or ())
        kept = cast("Keep", keep)  # other words are refused there
        used = _used_clips(opened)
        planned = plan_collection(inventory, keep=kept, in_use=used, older_than=age, larger_than=size, clips=clips)
    with STDERR.status("Freeing"):
        collection = collect(opened, planned, dry_run=dry_run)
        if not dry_run:
            remove_dead_claims(opened)
    _print_collection(collection, dry_run=dry_run)


def parse_age(text: str) -> timedelta:
    """Parse an age such as 7d, 12h or 30m.

    Raises:
        TaskInputError: if it is not a number with a unit.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)\s*([smhdw])|0", text.strip().lower())
    if match is None:
        raise TaskInputError(f"The age {text!r} is not a number with a unit, for example 7d, 12h or 30m.")
    return timedelta(seconds=float(match[1] or 0) * _SECONDS[match[2] or "s"])


def parse_size(text: str) -> int:
    """Parse a size such as 1GB, 1.5 GiB or 1000 to bytes.

    Raises:
        TaskInputError: if it is not a number, with or without a unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*((?:[kmgt]i?)?)b?", text.strip().lower())
    if match is None:
        raise TaskInputError(f"The size {text!r} is not a number of bytes, for example 1GB, 500MB or 2GiB.")
    return math.ceil(float(match[1]) * _BYTES[match[2]])


def _open(url: str | None) -> Workspace:
    from storage.workspace import Workspace

    return Workspace.open(read_settings(workspace=url).workspace)


def _list_datasets(workspace: Workspace, *, as_json: bool) -> None:
    from storage.status_table import StatusTable, state_counts, status_datasets

    counts = {name: state_counts(StatusTable(workspace, name).latest()) for name in status_datasets(workspace)}
    if as_json:
        _print_json({"dataset": name} | dict(found.items()) for name, found in counts.items())
    elif counts:
        states = tuple(next(iter(counts.values())))
        rows = ((name, *map(str, found.values())) for name, found in counts.items())
        STDOUT.print(_table(("data set", *states), rows, numbers=states))
    else:
        say(f"There is no data set in {workspace.url}")


def _latest(workspace: Workspace, dataset: str) -> pd.DataFrame:
    from storage.status_table import StatusTable, status_datasets

    known = status_datasets(workspace)
    if dataset not in known:
        raise TaskInputError(f"There is no data set {dataset!r} in {workspace.url}{_hint(dataset, known)}")
    return StatusTable(workspace, dataset).latest()


def _causes(rows: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Yield a line for each state and kind of error, the most frequent first: count, one message, some ids."""
    groups = [(str(state), str(kind), found) for (state, kind), found in rows.groupby(["state", "error_kind"])]
    for state, kind, found in sorted(groups, key=lambda group: -len(group[2])):
        ids = list(dict.fromkeys(found["id"]))
        shown = ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
        yield state, kind or "unknown", str(len(found)), str(found["message"].iloc[0]), shown


def _chosen_clips(
    workspace: Workspace, inventory: Inventory, *, clip: Iterable[str], dataset: Iterable[str]
) -> set[str] | None:
    """Return the names of the folders of the clips that are asked for, by clip and data set; None for all."""
    chosen = [_clip_folders(workspace, inventory, clip)] if clip else []
    if dataset:
        tables = (_latest(workspace, name) for name in dataset)
        chosen.append({digest for rows in tables for digest in _sources(rows)})
    return set.intersection(*chosen) if chosen else None


def _used_clips(workspace: Workspace) -> set[str]:
    """Return the folders of the clips that running jobs use: those being computed, and those of rows now running.

    A job has no claim while one stage has ended and the next has not begun, but its row runs.
    """
    from storage.inventory import used_clips
    from storage.status_table import StatusTable, status_datasets

    running = (StatusTable(workspace, name).running(within=_ROW_TIME) for name in status_datasets(workspace))
    return used_clips(workspace) | {f"clips/{digest}" for rows in running for digest in _sources(rows)}


def _sources(rows: pd.DataFrame) -> set[str]:
    """Return the digests of the rows' clips, where they were planned."""
    column = "manifest_identity_source"
    return set(rows[column].dropna()) - {""} if column in rows else set()


def _clip_folders(workspace: Workspace, inventory: Inventory, names: Iterable[str]) -> set[str]:
    """Return the folders of clips by their names, as past runs recorded them, or by (the start of) their digests."""
    from storage.tables import read_runs

    runs, stored = read_runs(workspace), {artifact.clip for artifact in inventory.artifacts}
    recorded = [] if runs.empty else list(zip(runs["clip"], runs["clip_digest"], strict=True))
    found: set[str] = set()
    for name in names:
        folders = {digest for clip, digest in recorded if clip == name} & stored
        folders |= {clip for clip in stored if clip == name or (len(name) >= _PREFIX and clip.startswith(name))}
        if not folders:
            known = [clip for clip, digest in recorded if digest in stored]
            raise TaskInputError(f"There is no clip {name!r} in {workspace.url}{_hint(name, known)}")
        found |= folders
    return found


def _print_collection(collection: Collection, *, dry_run: bool) -> None:
    if collection.removed:
        kinds = _grouped((choice.artifact.kind.replace("_", " "), choice) for choice in collection.removed)
        rows = ((kind, str(len(choices)), _size(choices)) for kind, choices in kinds.items())
        STDOUT.print(_table(("what", "artifacts", "size"), rows, numbers=("artifacts", "size")))
    say(f"{'Would free' if dry_run else 'Freed'} {_size(collection.removed)}")
    for reason, choices in _grouped((choice.reason, choice) for choice in collection.spared).items():
        say(f"Kept {_size(choices)}: {reason}")


def _grouped(choices: Iterable[tuple[str, Choice]]) -> dict[str, list[Choice]]:
    found: dict[str, list[Choice]] = defaultdict(list)
    for name, choice in choices:
        found[name].append(choice)
    return found


def _size(choices: Iterable[Choice]) -> str:
    return decimal(sum(choice.artifact.size for choice in choices))


def _hint(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]}?" if near else "."


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Container[str]) -> RichTable:
    """Lay out texts; columns of numbers are aligned to the right."""
    table = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", no_wrap=heading in numbers)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _print_json(objects: Iterable[Mapping[str, Any]]) -> None:
    for item in objects:
        STDOUT.out(json.dumps(item, ensure_ascii=False, default=_iso_time), highlight=False)


def _objects(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield rows as objects with the same names; null where a cell is empty or not finite."""
    for row in rows.astype(object).where(rows.notna(), None).to_dict("records"):
        yield {str(name): None if value in (math.inf, -math.inf) else value for name, value in row.items()}


def _iso_time(value: datetime) -> str:
    return value.isoformat()
