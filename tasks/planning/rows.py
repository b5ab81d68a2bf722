"""The rows of a data set, all checked before anything starts, and which of them are computed in what order.

A manifest has the columns id, source and prompt, and where wanted source_prompt, negative_prompt, any other setting of
`wave edit`, and variants (how many) or variant (a single one, by its number from 0). An empty cell takes the request's
default. Prompts are templates (`tasks.planning.templates`): they may refer to any column that is not itself a prompt,
and prompt and negative_prompt also to source_prompt. All further columns are carried along.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heapreplace
from pathlib import Path

from tasks.errors import TaskInputError
from tasks.planning.clip_listing import is_listing, list_clips
from tasks.planning.dataset import DatasetRequest, parse_shard
from tasks.planning.manifest_table import read_table
from tasks.planning.row import Row
from tasks.planning.row_checks import check_rows
from tasks.planning.row_filter import parse_filter
from tasks.planning.variants import draw

__all__ = ["CANCELLED", "FAILED", "order_by_source", "read_rows", "sample_rows", "select_rows", "shard_rows"]

FAILED = "failed"
"""State, in the status of earlier runs, of a row that `only="failed"` takes."""
CANCELLED = "cancelled"
"""State of a row that `only="missing"` takes, as it does those without a state."""


def read_rows(
    request: DatasetRequest, *, known: Mapping[tuple[str, int], str] | None = None, own_tables: str | None = None
) -> tuple[Row, ...]:
    """Read and check all rows, and return those that the request asks for, as `select_rows` does.

    Local sources must exist; none is opened. Sources by URL are not looked for. All rows are checked, whether the
    request asks for them or not.

    Args:
        request: the source, and what to take of it.
        known: states of earlier runs by id and variant, for `only`.
        own_tables: folder of manifests that runs have written, such as that of the failed rows: their sources were
            checked before, and may be outside of it.

    Raises:
        ManifestError: with all faults of all rows.
        TaskInputError: one sentence, if the source cannot be read or has no rows, or a filter or a prompt of the
            request cannot be used.
    """
    listing = is_listing(request.source)
    table = list_clips(request.source, exclude=request.output) if listing else read_table(request.source)
    if own_tables is not None and _is_below(table.folder, own_tables):
        table = replace(table, trusted=True)
    if not len(table):
        raise TaskInputError(f"The {table.title} has no rows.")
    return select_rows(check_rows(table, request), request, known=known)


def _is_below(folder: str, other: str) -> bool:
    """Return whether a folder, a path or URL, is inside of another one of the same kind."""
    if "://" in other:
        return ".." not in folder.split("/") and f"{folder}/".startswith(f"{other}/")
    return "://" not in folder and Path(folder).resolve().is_relative_to(Path(other).resolve())


def select_rows(
    rows: Sequence[Row], request: DatasetRequest, *, known: Mapping[tuple[str, int], str] | None = None
) -> tuple[Row, ...]:
    """Return the rows that a request asks for, in their order, or that of the sample.

    The filter comes first, then the status, then sample and limit. Shards divide what the filter leaves, whatever the
    status says, so that shards that are started one after the other never take the same row.

    Args:
        rows: all rows of a manifest.
        request: what is asked for.
        known: the states of earlier runs by id and variant; needed for the failed and the missing rows.

    Raises:
        TaskInputError: if the filter names an unknown column, or the states are needed and absent.
    """
    chosen = _matching(rows, request.where)
    shard = None if request.shard is None else {row.key for row in shard_rows(chosen, request.shard)}
    chosen = _by_state(chosen, request.only, known)
    if request.sample is not None:
        chosen = sample_rows(chosen, seed=request.sample, count=len(chosen))
    chosen = chosen[: request.limit]
    return tuple(chosen) if shard is None else tuple(row for row in chosen if row.key in shard)


def order_by_source(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows with those of one source next to one another, sources and rows in the order they came in."""
    by_source: dict[str, list[Row]] = {}
    for row in rows:
        by_source.setdefault(row.source, []).append(row)
    return tuple(row for several in by_source.values() for row in several)


def sample_rows(rows: Sequence[Row], *, seed: int, count: int) -> list[Row]:
    """Return at most `count` rows at random, in random order; both depend on the seed, the ids and the variants alone.

    A row that joins the data set takes its place among the others, and leaves their order as it is.
    """
    return sorted(rows, key=lambda row: draw("sample", seed=seed, row_id=row.id, variant=row.variant))[:count]


def shard_rows(rows: Sequence[Row], shard: str) -> tuple[Row, ...]:
    """Return the rows of the shard I/N, in their order; all rows of a source are in one shard.

    The sources with the most rows are dealt out first, each to the shard with the fewest rows: no two shards differ by
    more rows than one source has.

    Raises:
        TaskInputError: if the shard is not of the form I/N.
    """
    number, count = parse_shard(shard)
    per_source = Counter(row.source for row in rows)
    loads = [(0, index) for index in range(1, count + 1)]
    heapify(loads)
    mine = set[str]()
    for source, size in sorted(per_source.items(), key=lambda item: (-item[1], item[0])):
        load, index = loads[0]
        heapreplace(loads, (load + size, index))
        if index == number:
            mine.add(source)
    return tuple(row for row in rows if row.source in mine)


def _matching(rows: Sequence[Row], where: str | None) -> Sequence[Row]:
    if where is None or not rows:
        return rows
    condition = parse_filter(where)
    condition.check(rows[0].columns)
    return [row for row in rows if condition.matches(row.text)]


def _by_state(rows: Sequence[Row], only: str, known: Mapping[tuple[str, int], str] | None) -> Sequence[Row]:
    if only == "all":
        return rows
    if known is None:
        raise TaskInputError(f"There is no status of earlier runs, from which to take the {only} rows.")
    if only == FAILED:
        return [row for row in rows if known.get(row.key) == FAILED]
    return [row for row in rows if known.get(row.key, CANCELLED) == CANCELLED]
