"""Append-only records in the Parquet files of one folder, appended to by many processes and machines at once.

Every file is written whole, under a name that no other file ever has. Every record has a key, made of the name of the
file that it was appended in and its row there, and the records are the union of all files by key. So neither an
interrupted compaction nor two at the same time can lose or double a record, and appending needs no lock.

Convention: names and keys sort by the time of the append, by the clock of the machine that appended.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import WorkspaceError
from storage.files import Files, is_partial

__all__ = ["KEY", "RecordFiles", "key_time"]

KEY = "record"
"""The column of the records' keys."""
_SUFFIX, _MERGED = ".parquet", ".merged.parquet"
_REPLACED = b"replaced"
_LARGE = (
    64 * 2**20
)  # bytes; files of this size are not merged again, so that compacting never rewrites years of records
_TICK = timedelta(microseconds=1)
_TIME = "%Y%m%dT%H%M%S.%fZ"
_LOG = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class RecordFiles:
    """The files of one table. Appending and compacting are safe at any time, from any number of processes."""

    files: Files
    folder: str
    writer: str
    """Part of the names of the files that this object writes; one word."""
    lenient: bool = False
    """Whether a damaged file is left out, with a warning, where it would be an error; it is never removed."""
    _last: datetime = field(default=datetime.min.replace(tzinfo=UTC), init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def append(self, records: pa.Table) -> None:
        """Append records in their order, as one file; it appears as a whole or not at all."""
        stem = self._unique()
        keys = pa.array([f"{stem}-{row:08d}" for row in range(len(records))], pa.string())
        self._write(f"{stem}{_SUFFIX}", records.append_column(KEY, keys))

    def read(self) -> pa.Table:
        """Return every record once, sorted by key.

        The columns are those of all files together. A column with types that have no common one becomes text.

        Raises:
            WorkspaceError: if a file is damaged.
        """
        while True:
            listed = self._list()
            merged = self._load(filter(_is_merged, listed))
            parts = self._load(listed.keys() - merged.keys() - _replaced_by(merged))
            # A compaction meanwhile may have removed files before they were read, or even before a listing that takes
            # time came to their names; the file that it merged them into is then in the next listing
            if not any(map(_is_merged, self._list().keys() - listed.keys())):
                return _union([*merged.values(), *parts.values()])

    def compact(self) -> int:
        """Merge the small files into one and remove them; return how many files were removed.

        The merged file is written first and names the files that it replaces. Readers ignore those, and where an
        interruption or another process leaves some of them, the next compaction removes them.

        Raises:
            WorkspaceError: if a file is damaged.
        """
        listed = self._list()
        merged = self._load(filter(_is_merged, listed))
        removable = _replaced_by(merged) & listed.keys()
        small = [name for name, size in listed.items() if size < _LARGE and name not in removable]
        if len(small) > 1:
            found = merged | self._load(name for name in small if name not in merged)
            sources = {name: found[name] for name in small if name in found}  # those that are still there
            removable |= sources.keys()
            # What older merged files replace is named again: their names go when they are removed themselves
            self._write(f"{self._unique()}{_MERGED}", _union(list(sources.values())), replaced=removable)
        self.files.delete(f"{self.folder}/{name}" for name in sorted(removable))
        return len(removable)

    def _list(self) -> dict[str, int]:
        found = self.files.sizes(self.folder)
        return {name: size for name, size in found.items() if name.endswith(_SUFFIX) and not is_partial(name)}

    def _load(self, names: Iterable[str]) -> dict[str, pa.Table]:
        """Read files, by name; those that were removed meanwhile are left out."""
        keys = {f"{self.folder}/{name}": name for name in sorted(names)}
        found: dict[str, pa.Table] = {}
        for key, data in self.files.read_many(keys).items():
            try:
                found[keys[key]] = self._parse(key, data)
            except WorkspaceError as error:
                if not self.lenient:
                    raise
                _LOG.warning("Left out: %s", error)
        return found

    def _parse(self, key: str, data: bytes) -> pa.Table:
        try:
            table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise WorkspaceError(f"{key} is damaged ({reason}): delete that file, and its records are lost") from error
        if KEY not in table.column_names:
            raise WorkspaceError(f"{key} has no column {KEY}: move that file elsewhere, it is not one of this table")
        return table

    def _write(self, name: str, table: pa.Table, *, replaced: Iterable[str] = ()) -> None:
        buffer = io.BytesIO()
        names = {_REPLACED: json.dumps(sorted(replaced)).encode()}
        # zstd makes a large file smaller; a small one is smaller and twice as fast to read without what serves searches
        small = {"use_dictionary": False, "write_statistics": False}
        options = {"compression": "zstd"} if _is_merged(name) else small
        pq.write_table(table.replace_schema_metadata(names), buffer, **options)
        self.files.write(f"{self.folder}/{name}", buffer.getvalue())

    def _unique(self) -> str:
        """Return a file name without its ending, later than the one before, that no process has ever returned."""
        with self._lock:  # and never earlier than the one before, even if the clock is set back
            self._last = max(datetime.now(UTC), self._last + _TICK)
            # Random, since a process forked from this one would continue the same count
            return f"{self._last:{_TIME}}-{self.writer}-{uuid.uuid4().hex[:12]}"


def key_time(key: str) -> datetime:
    """Return when the record of a key was appended, by the clock of the machine that did."""
    return datetime.strptime(key.partition("-")[0], _TIME).replace(tzinfo=UTC)


def _is_merged(name: str) -> bool:
    return name.endswith(_MERGED)


def _replaced_by(merged: Mapping[str, pa.Table]) -> set[str]:
    """Return the names of all files that the merged ones replace."""
    names = (json.loads((table.schema.metadata or {}).get(_REPLACED, b"[]")) for table in merged.values())
    return set(itertools.chain.from_iterable(names))


def _union(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the records of all tables, once each, sorted by key."""
    if not tables:
        return pa.table({KEY: pa.array([], pa.string())})
    records = _concatenated([table.replace_schema_metadata(None) for table in tables]).sort_by(KEY).combine_chunks()
    keys = records[KEY]
    first = pa.array([True] * min(1, len(keys)), pa.bool_())
    others = pc.not_equal(keys.slice(1), keys.slice(0, max(0, len(keys) - 1)))
    return records.filter(pa.chunked_array([first, *others.chunks], pa.bool_()))


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        mixed = _mixed_columns(tables)
        return pa.concat_tables([_as_text(table, mixed) for table in tables], promote_options="permissive")


def _mixed_columns(tables: Iterable[pa.Table]) -> set[str]:
    """Return the names of columns with types that have no common one."""
    kinds: dict[str, set[pa.DataType]] = defaultdict(set)
    for table in tables:
        for column in table.schema:
            kinds[column.name].add(column.type)
    return {name for name, found in kinds.items() if not _have_common_type(found)}


def _have_common_type(kinds: Iterable[pa.DataType]) -> bool:
    try:
        pa.unify_schemas([pa.schema([("", kind)]) for kind in kinds], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return False
    return True


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    for index, name in enumerate(table.column_names):
        if name in names:
            table = table.set_column(index, name, table[name].cast(pa.string()))
    return table
