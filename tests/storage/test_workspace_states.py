"""Any sequence of opening, writing, crashing, completing, collecting and a second process, against a dictionary."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from storage.errors import UnreachableError
from storage.faults import Effect, Faults
from storage.files import Files
from storage.inventory import Keep, collect, plan_collection, take_inventory
from storage.workspace import Workspace
from tests._stored_rows import ROWS, SHARD, opened, values, write_rows

ROOT = Path(__file__).parents[2]
PATHS = {
    "clips/c/inversion/i": {"all"},
    "clips/c/edits/e/frames": {"all", "edits"},
    "clips/c/edits/e/video": {"all", "edits", "results"},
    "clips/c/edits/e/report": {"all", "edits", "results"},
}
"""Artifacts, and what is kept with each of them kept."""
DIGESTS = ("first", "second")

path_names = st.sampled_from(sorted(PATHS))
digests = st.sampled_from(DIGESTS)
shard_counts = st.integers(0, -(-ROWS // SHARD))


@dataclass(frozen=True)
class Content:
    """What one path of the model contains."""

    digest: str
    rows: int = 0
    complete: bool = False


class Interrupted(Exception):
    """What a kill looks like from inside."""


@dataclass
class InterruptedFiles:
    """Files that end the process's work after a number of removals."""

    files: Files
    left: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            if self.left == 0:
                raise Interrupted
            self.left -= 1
            self.files.delete([key])


class Workspaces(RuleBasedStateMachine):
    """A workspace, and what it must contain: of each path nothing, or the work of one digest."""

    other_process: ClassVar[subprocess.Popen[str]]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="wave-states-"))
        self.workspace = Workspace.open(self.folder)
        self.model: dict[str, Content] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def found(self, path: str, digest: str) -> Content:
        """Return what the model has of a digest at a path: the work of another one does not count."""
        content = self.model.get(path)
        return content if content is not None and content.digest == digest else Content(digest)

    def written(self, path: str, digest: str, shards: int, complete: bool) -> tuple[int, Content]:
        """Return how many rows a writer must find, and what it must leave."""
        before = self.found(path, digest)
        if before.complete:
            return -1, before
        rows = max(before.rows, min(ROWS, SHARD * shards))
        return before.rows, Content(digest, rows, complete and rows == ROWS)

    @initialize(done=st.sets(path_names))
    def finish_some(self, done: set[str]) -> None:
        for path in done:
            self.finish(path, DIGESTS[0])

    @rule(path=path_names, digest=digests)
    def finish(self, path: str, digest: str) -> None:
        self.write(path, digest, ROWS, complete=True)

    @rule(path=path_names, digest=digests, shards=shard_counts, complete=st.booleans())
    def write(self, path: str, digest: str, shards: int, complete: bool) -> None:
        found, left = self.written(path, digest, shards, complete)
        assert write_rows(self.workspace, path, digest, shards=shards, complete=complete) == found
        self.model[path] = left

    @rule(path=path_names, digest=digests, shards=shard_counts, complete=st.booleans())
    def write_in_another_process(self, path: str, digest: str, shards: int, complete: bool) -> None:
        found, left = self.written(path, digest, shards, complete)
        process = self.other_process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([self.workspace.url, path, digest, shards, complete]) + "\n")
        process.stdin.flush()
        assert int(process.stdout.readline()) == found
        self.model[path] = left

    @rule(
        path=path_names,
        digest=digests,
        number=st.integers(0, 9),
        effect=st.sampled_from(["error", "half", "lost"]),
    )
    def crash(self, path: str, digest: str, number: int, effect: Effect) -> None:
        """Let a write fail; what is left is that from before, or part of what was to be written."""
        before, (_, most) = self.model.get(path), self.written(path, digest, ROWS, True)
        faults = Faults(choose=lambda each, _: effect if each == number else None)
        try:
            with faults.injected():
                write_rows(Workspace.open(self.folder), path, digest, shards=ROWS, complete=True)
        except (OSError, UnreachableError):
            left = self.present(path)
            own = left is not None and left.digest == digest
            assert own or left in (None, before)
            if left is not None and own:
                assert left.rows >= self.found(path, digest).rows
                assert not left.complete or effect == "lost"
            self.model.pop(path, None)
            if left is not None:
                self.model[path] = left
        else:
            self.model[path] = most

    @rule(path=path_names, digest=digests)
    def require_with_another_description(self, path: str, digest: str) -> None:
        array = opened(self.workspace, path, digest).require_array("rows", shape=(1, 2), chunks=(1, 2), dtype="float32")
        assert array.shape == (1, 2)
        self.model[path] = Content(digest)

    @rule(keep=st.sampled_from(["results", "edits", "all"]), removals=st.none() | st.integers(0, 9), old=st.booleans())
    def collect(self, keep: Keep, removals: int | None, old: bool) -> None:
        """Remove what is not needed, and be interrupted in it."""
        inventory = take_inventory(self.workspace)
        inventory = replace(inventory, taken=inventory.taken + timedelta(days=9))
        collection = plan_collection(inventory, keep=keep, older_than=timedelta(days=1) if old else None)
        files: Any = InterruptedFiles(self.workspace.files, -1 if removals is None else removals)
        before = dict(self.model)
        with contextlib.suppress(Interrupted):
            collect(replace(self.workspace, files=files), collection)
        for path, content in before.items():
            left = self.present(path)
            if content.complete and keep in PATHS[path]:
                assert left == content, f"{path} was needed"
            elif left is None:
                del self.model[path]
            else:
                assert left == content or not left.complete
                self.model[path] = left

    @invariant()
    def is_absent_or_whole_and_never_wrong(self) -> None:
        for path in PATHS:
            assert self.present(path) == self.model.get(path, None) or self.is_empty(path)

    def is_empty(self, path: str) -> bool:
        """Return whether neither the workspace nor the model has any rows or a record."""
        present, content = self.present(path), self.model.get(path)
        return not any(each is not None and (each.rows or each.complete) for each in (present, content))

    def present(self, path: str) -> Content | None:
        """Return what the workspace has at a path, and check every value of it."""
        return next((found for digest in DIGESTS if (found := self.checked(path, digest)) is not None), None)

    def checked(self, path: str, digest: str) -> Content | None:
        artifact = opened(Workspace.open(self.folder), path, digest)
        complete, rows = artifact.is_complete(), artifact.readable_prefix("rows")
        if rows and artifact.array("rows").shape == (ROWS, 2):
            np.testing.assert_array_equal(artifact.read_region("rows", 0, rows), values(digest)[:rows])
        if complete:
            assert rows == ROWS
            assert artifact.metadata == {"digest": digest}
            assert artifact.read_json("facts.json") == digest
        if rows or complete or self.is_owned(path, digest):
            return Content(digest, rows, complete)
        return None

    def is_owned(self, path: str, digest: str) -> bool:
        node = self.folder / path / "zarr.json"
        try:
            return bool(json.loads(node.read_bytes())["attributes"]["digest"] == digest)
        except (OSError, ValueError, KeyError):
            return False


@pytest.fixture
def other_process() -> Iterator[None]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests._stored_rows"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    Workspaces.other_process = process
    yield
    process.communicate()
    assert process.returncode == 0


@pytest.mark.usefixtures("other_process")
def test_whatever_happens_an_artifact_is_absent_or_whole_and_what_is_needed_stays() -> None:
    run_state_machine_as_test(Workspaces, settings=settings(max_examples=8, stateful_step_count=12))


@pytest.mark.slow
@pytest.mark.usefixtures("other_process")
def test_whatever_happens_for_minutes_an_artifact_is_absent_or_whole_and_what_is_needed_stays() -> None:
    long = settings(max_examples=400, stateful_step_count=40, derandomize=False)
    run_state_machine_as_test(Workspaces, settings=long)
