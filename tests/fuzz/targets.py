"""What is fuzzed: functions of bytes that fail only where a parser is wrong.

A parser may refuse its input with an error of its own, one sentence; what it accepts must have the properties that
its callers rely on. Anything else, such as a KeyError, is a fault.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from storage.artifact import Artifact
from storage.errors import StorageError, WorkspaceError
from storage.flo import read_flo
from storage.inventory import plan_collection, take_inventory
from storage.reference import ArtifactRef
from storage.video._timing import Timeline, final_duration
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.planning.dataset import DatasetRequest, dataset_request, load_dataset_settings
from tasks.planning.manifest_table import SUFFIXES, read_table, table_text, write_table
from tasks.planning.request import edit_request
from tasks.planning.rows import read_rows
from tasks.planning.templates import escape_braces, parse_template

__all__ = ["TARGETS"]

_LONGEST_MESSAGE = 5_000
_SETTINGS = (".toml", ".yaml")
_LARGEST_TICK = 2**40


def manifest(data: bytes) -> None:
    """Read the rows of a manifest of the form that the first byte chooses."""
    suffix = SUFFIXES[data[0] % len(SUFFIXES)] if data else ".csv"
    path = _folder() / f"manifest{suffix}"
    path.write_bytes(data[1:])
    with _one_sentence(TaskInputError):
        table = read_table(str(path))
        # What can be read as text can be written as text, and is then the same
        again = path.with_suffix(".again.jsonl")
        with suppress(TaskInputError):
            write_table(again, table.columns)
            if len(table):
                same = table_text(read_table(str(again)).columns, ".jsonl")
                assert same == table_text(table.columns, ".jsonl")
    with _one_sentence(TaskInputError):
        rows = read_rows(dataset_request(source=str(path), prompt="a {id}"))
        assert len({row.key for row in rows}) == len({row.output for row in rows}) == len(rows)
        for row in rows:
            assert row.request.prompt


def settings(data: bytes) -> None:
    """Read the settings of a data set, TOML or YAML as the first byte chooses."""
    path = _folder() / f"settings{_SETTINGS[data[0] % len(_SETTINGS)] if data else '.toml'}"
    path.write_bytes(data[1:])
    with _one_sentence(TaskInputError):
        fields = load_dataset_settings(path)
        request = dataset_request(**{**fields, "source": "clips"})
        assert DatasetRequest(**request.model_dump()) == request


def record(data: bytes) -> None:
    """Read the record of an artifact that is complete: of whatever is there, nothing false may follow."""
    artifact, ref = _artifact()
    artifact.files.write(f"{ref.path}/complete.json", data)
    workspace = Workspace.open(ref.workspace)
    opened = workspace.artifact(ref)
    if opened.is_complete():
        assert opened.record()["digest"] == ref.digest
    with suppress(WorkspaceError):
        assert isinstance(opened.metadata, dict)
    for each in (opened, workspace.artifact(ref.path)):
        each.is_complete()
    plan_collection(take_inventory(workspace), keep="results")


def part(data: bytes) -> None:
    """Read the record of a finished part."""
    artifact, ref = _artifact()
    artifact.files.write(f"{ref.path}/parts/0.json", data)
    opened = Workspace.open(ref.workspace).artifact(ref)
    assert opened.has_part("0") == ("0" in opened.completed_parts())
    with suppress(WorkspaceError):
        assert isinstance(opened.parts_metadata(["0"])["0"], dict)


def group(data: bytes) -> None:
    """Read the description of an artifact that was begun."""
    artifact, ref = _artifact()
    workspace = Workspace.open(ref.workspace)
    artifact.files.delete([f"{ref.path}/complete.json"])
    artifact.files.write(f"{ref.path}/zarr.json", data)
    for found in take_inventory(workspace).artifacts:
        assert isinstance(found.digest, str | None)
    workspace.artifact(ref).has_file("facts.json")


def flow(data: bytes) -> None:
    """Read optical flow."""
    path = _folder() / "flow.flo"
    path.write_bytes(data)
    with _one_sentence(StorageError):
        found = read_flo(path)
        assert found.shape[0] == 2
        assert not np.isinf(found).any()


def template(data: bytes) -> None:
    """Parse a prompt, and fill it in."""
    text = data.decode(errors="replace")
    with _one_sentence(TaskInputError):
        parsed = parse_template(text)
        filled = parsed.fill(dict.fromkeys(parsed.columns, "{x}"), lambda number, count: number % count)
        assert len(filled) <= len(text) + 3 * len(text)
    assert parse_template(escape_braces(text)).fill({}, lambda *_: 0) == text


def timestamps(data: bytes) -> None:
    """Repair timestamps, and read times and rates as a person writes them."""
    if len(data) % 2:
        text = data.decode(errors="replace").replace("\0", " ")
        for name in ("start", "end", "frames", "rate"):
            with _one_sentence(TaskInputError):
                request = edit_request(video="a.mp4", prompt="x", **{name: text})
                assert request.trim.count(100, 25.0) in range(101)
                assert request.picture_rate is None or request.picture_rate > 0
        return
    numbers = [value for (value,) in struct.iter_unpack("<q", data[: len(data) // 8 * 8])]
    base, rate = Fraction(1, 90_000), Fraction(25)
    timeline = Timeline(base, rate)
    times = [timeline.place(None if value % 7 == 0 else value % _LARGEST_TICK) for value in numbers]
    assert all(after > before for before, after in pairwise(times))
    assert final_duration(times, numbers[-1] if numbers else 0, time_base=base, rate=rate) > 0


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    each.__name__: each for each in (manifest, settings, record, part, group, flow, template, timestamps)
}


@contextmanager
def _one_sentence(kind: type[ValueError]) -> Iterator[None]:
    """Accept an error of a kind, if its message is one short line."""
    try:
        yield
    except kind as error:
        message = str(error)
        assert message.strip()
        assert message.isprintable()
        assert len(message) < _LONGEST_MESSAGE


@cache
def _folder() -> Path:
    """Return a folder of this process, in memory where there is one."""
    memory = Path("/dev/shm")  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="wave-fuzz-", dir=memory if memory.is_dir() else None))


@cache
def _artifact() -> tuple[Artifact, ArtifactRef]:
    """Return an artifact with an array, a file and a part."""
    workspace = Workspace.open(_folder() / "workspace")
    ref = workspace.ref("clips/c/inversion/i", "digest")
    artifact = workspace.artifact(ref)
    artifact.require_array("rows", shape=(2, 2), chunks=(1, 2), dtype="float32")
    artifact.write_region("rows", 0, np.ones((2, 2), np.float32))
    artifact.write_json("facts.json", {})
    artifact.complete_part("0", regions={"rows": (0, 1)})
    artifact.complete({})
    return artifact, ref
