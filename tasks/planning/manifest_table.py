"""Manifests as tables: CSV, TSV, JSON lines, JSON and Parquet.

Convention: text stays as it is written, so that "None", "1e3" and "007" are prompts and ids like any other. CSV and
TSV contain nothing but text; the other forms have types, and None where there is nothing.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from storage.csv_cells import escape_cell, unescape_cell
from storage.files import atomic_path
from storage.secrets import without_secrets
from tasks.errors import TaskInputError
from tasks.planning.faults import Fault
from tasks.planning.local_path import local_path
from tasks.planning.source_policy import open_filesystem

__all__ = [
    "SUFFIXES",
    "Columns",
    "Table",
    "cell_text",
    "is_scalar",
    "manifest_suffix",
    "read_table",
    "table_text",
    "write_table",
]

Columns: TypeAlias = Mapping[str, Sequence[object]]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
"""File name endings of manifests."""
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_EXACT_INTEGER = 2**53  # beyond it several integers round to the same float
_PANDAS_INDEX = "__index_level_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The cells of a manifest, not yet checked."""

    title: str
    """What it is, for messages: "manifest clips.csv"."""
    folder: str
    """Folder or URL at which relative paths of sources start."""
    columns: Columns
    """All of one length, the number of rows."""
    trusted: bool = False
    """Whether sources may be anywhere: they were found in a folder, or checked by the run that wrote the table."""
    faults: tuple[Fault, ...] = ()
    """Rows that do not fit the table's form; their cells are not to be used."""

    def __len__(self) -> int:
        return max((len(cells) for cells in self.columns.values()), default=0)


def manifest_suffix(path: str, *, needed: bool = False) -> str:
    """Return the suffix of a manifest's path or URL in lower case, or "" where it is not one of a manifest.

    Raises:
        TaskInputError: instead of "", if it is needed.
    """
    suffix = PurePosixPath(path.partition("?")[0] if "://" in path else path).suffix.lower()
    if needed and suffix not in SUFFIXES:
        raise TaskInputError(f"The manifest {path} must end with one of {', '.join(SUFFIXES)}.")
    return suffix if suffix in SUFFIXES else ""


def read_table(path: str) -> Table:
    """Read a manifest, from a local file or an fsspec URL.

    Raises:
        TaskInputError: one sentence, if there is no such file or it does not have the form that its name says.
    """
    suffix = manifest_suffix(path, needed=True)
    try:
        columns, faults = _parse(_content(path), suffix)
    except FileNotFoundError:
        raise TaskInputError(without_secrets(f"There is no manifest {path}.")) from None
    except TaskInputError:
        raise
    except (OSError, ValueError, ImportError, RecursionError, csv.Error, pa.ArrowException) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise TaskInputError(without_secrets(f"The manifest {path} cannot be read: {lines[0].rstrip('.')}.")) from error
    return Table(title=f"manifest {path}", folder=_folder(path), columns=columns, faults=tuple(faults))


def is_scalar(value: object) -> bool:
    """Return whether a cell is a text, a number or another single value, or empty."""
    return not isinstance(value, (list, dict, bytes))


def cell_text(value: object) -> str:
    """Return a cell as text without spaces around it: "" for nothing, "true", a whole number without a point."""
    match value:
        case str():
            return value.strip()
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float() if math.isnan(value):
            return ""
        case float() if value.is_integer() and abs(value) < _EXACT_INTEGER:
            return str(int(value))  # a column of whole numbers with a gap is one of floats
        case list() | dict():
            return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def write_table(path: Path, columns: Columns) -> None:
    """Write a manifest, whole or not at all, in the form that its name says; `read_table` returns the same cells.

    CSV and TSV keep the text alone: None becomes empty, True "true".

    Raises:
        TaskInputError: if the name does not end like that of a manifest, the file cannot be written, or a column mixes
            types that Parquet has no common one for.
    """
    suffix = manifest_suffix(str(path), needed=True)
    try:
        with atomic_path(path) as partial:
            if suffix == ".parquet":
                pq.write_table(pa.table({name: list(cells) for name, cells in columns.items()}), partial)
            else:
                partial.write_text(table_text(columns, suffix), encoding="utf-8", newline="")
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise TaskInputError(f"The manifest {path} cannot be written: {str(error).splitlines()[0]}.") from error


def _content(path: str) -> bytes:
    if "://" not in path:
        return local_path(path).read_bytes()
    filesystem, remote = open_filesystem(path)
    return bytes(filesystem.cat_file(remote))


def _folder(path: str) -> str:
    return path.rpartition("/")[0] if "://" in path else str(local_path(path).absolute().parent)


def _parse(data: bytes, suffix: str) -> tuple[Columns, list[Fault]]:
    match suffix:
        case ".parquet":
            return _parquet_columns(data), []
        case ".json":
            return _json_columns(data), []
        case ".jsonl":
            return _json_lines_columns(data)
        case _:
            return _delimited_columns(data, _DELIMITERS[suffix])


def _parquet_columns(data: bytes) -> Columns:
    table = pq.read_table(pa.BufferReader(data))
    _check_names(table.column_names)
    kept = [name for name in table.column_names if not name.startswith(_PANDAS_INDEX)]
    return {name: table.column(name).to_pylist() for name in kept}


def _json_columns(data: bytes) -> Columns:
    records = json.loads(data.decode("utf-8-sig"))
    if not (isinstance(records, list) and all(isinstance(record, dict) for record in records)):
        raise ValueError("expected a list of objects")
    return _by_column(records)


def _json_lines_columns(data: bytes) -> tuple[Columns, list[Fault]]:
    lines = [line for line in data.decode("utf-8-sig").split("\n") if line.strip()]
    records, faults = list[dict[str, Any]](), list[Fault]()
    for number, line in enumerate(lines, start=1):
        record, reason = _json_object(line)
        records.append(record)
        faults += [Fault(row=number, reason=reason)] if reason else []
    return _by_column(records), faults


def _json_object(line: str) -> tuple[dict[str, Any], str]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON ({error})"
    return (record, "") if isinstance(record, dict) else ({}, "not a JSON object")


def _by_column(records: Sequence[Mapping[str, Any]]) -> Columns:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


def _delimited_columns(data: bytes, delimiter: str) -> tuple[Columns, list[Fault]]:
    # Strict, since the reader would take a file that ends inside of quotes for whole
    lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True)
    heading = [unescape_cell(name.strip()) for name in next(lines, [])]
    _check_names(heading)
    rows, faults = list[list[str]](), list[Fault]()
    for number, cells in enumerate((cells for cells in lines if cells), start=1):
        if len(cells) != len(heading):
            reason = f"it has {len(cells)} cells, and the heading has {len(heading)}"
            faults.append(Fault(row=number, reason=reason))
        rows.append([unescape_cell(cell) for cell in (cells + [""] * len(heading))[: len(heading)]])
    return {name: [cells[i] for cells in rows] for i, name in enumerate(heading)}, faults


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise ValueError("it is empty")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"it has two columns {twice!r}" if twice else "it has two columns without a name")


def table_text(columns: Columns, suffix: str) -> str:
    """Return a manifest in one of the forms of text, which `read_table` reads back; see `write_table`.

    Cells of CSV and TSV that a spreadsheet would take for formulas are escaped.

    Raises:
        ValueError, TypeError: if a value has no form in JSON.
    """
    rows: Iterator[tuple[object, ...]] = zip(*columns.values(), strict=True)
    if suffix in _DELIMITERS:
        return _delimited([list(columns), *([_exact(value) for value in row] for row in rows)], _DELIMITERS[suffix])
    lines = [json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, allow_nan=False) for row in rows]
    if suffix == ".jsonl":
        return "".join(f"{line}\n" for line in lines)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _delimited(rows: Sequence[Sequence[str]], delimiter: str) -> str:
    # The writer quotes a line feed, and not a carriage return, at which readers end a row as well
    returns = any("\r" in cell for row in rows for cell in row)
    buffer = io.StringIO(newline="")
    writer = csv.writer(
        buffer,
        delimiter=delimiter,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL,
    )
    writer.writerows([escape_cell(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def _exact(value: object) -> str:
    return value if isinstance(value, str) else cell_text(value)
