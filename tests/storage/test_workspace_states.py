"""Any sequence of writes, crashes, completions, damage and collections, also by a second process, against a dictionary.

The short sequences by which a fault of storage is found are tests of their own: a run of a few examples misses them.
"""

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
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from storage.errors import UnreachableError, WorkspaceError
from storage.faults import Effect, Faults
from storage.files import Files
from storage.inventory import Keep, collect, plan_collection, take_inventory
from storage.workspace import Workspace
from tests._stored_rows import ROWS, SHARD, opened, values, write_rows

ROOT = Path(__file__).parents[2]
INVERSION, EDIT = "clips/c/inversion/i", "clips/c/edits/e"
FRAMES, VIDEO, REPORT = f"{EDIT}/frames", f"{EDIT}/video", f"{EDIT}/report"
PATHS = {
    INVERSION: {"all"},
    FRAMES: {"all", "edits"},
    VIDEO: {"all", "edits", "results"},
    REPORT: {"all", "edits", "results"},
}
"""Artifacts, and what is kept with each of them kept."""
DIGESTS = FIRST, SECOND = ("first", "second")
FILES = ("complete.json", "facts.json", "rows/c/0/0", "rows/c/1/0", "rows/zarr.json", "zarr.json")
"""Files of a complete artifact."""
Damage = Literal["absent", "cut"]

path_names = st.sampled_from(sorted(PATHS))
digests = st.sampled_from(DIGESTS)
shard_counts = st.integers(0, -(-ROWS // SHARD))
keeps = st.sampled_from(["results", "edits", "all"])


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
        self.damaged: dict[str, str] = {}
        """By path, the digest of which a file was damaged: the others count again once that one is written."""

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

    def note(self, path: str, left: Content) -> None:
        """Note what a write has left; more than it wrote where the rest was there, all of it right."""
        present = self.present(path)
        if present is not None and self.damaged.get(path) == present.digest == left.digest:
            left = Content(left.digest, max(left.rows, present.rows), left.complete or present.complete)
        self.model[path] = left

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
        self.note(path, left)

    @rule(path=path_names, digest=digests, shards=shard_counts, complete=st.booleans())
    def write_in_another_process(self, path: str, digest: str, shards: int, complete: bool) -> None:
        found, left = self.written(path, digest, shards, complete)
        process = self.other_process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([self.workspace.url, path, digest, shards, complete]) + "\n")
        process.stdin.flush()
        assert int(process.stdout.readline()) == found
        self.note(path, left)

    @rule(
        path=path_names,
        digest=digests,
        number=st.integers(0, 9),
        effect=st.sampled_from(["error", "half", "lost"]),
    )
    def crash(self, path: str, digest: str, number: int, effect: Effect) -> None:
        """Let a write fail; what is left is that from before, or part of what was to be written."""
        before, (_, most) = self.model.get(path), self.written(path, digest, ROWS, True)
        recorded = (self.folder / path / "complete.json").exists()  # it counts once a lost file is there again
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
                assert not left.complete or effect == "lost" or recorded
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

    @rule(path=path_names, digest=digests, shards=st.integers(0, 1))
    def complete_too_early(self, path: str, digest: str, shards: int) -> None:
        self.write(path, digest, shards, complete=False)
        chunks = [self.folder / path / "rows/c" / str(shard) / "0" for shard in (0, 1)]
        if not all(chunk.exists() for chunk in chunks):
            with pytest.raises(WorkspaceError, match="cannot be completed"):
                opened(self.workspace, path, digest).complete({"digest": digest})

    @rule(path=path_names, file=st.sampled_from(FILES), how=st.sampled_from(["absent", "cut"]))
    def damage(self, path: str, file: str, how: Damage) -> None:
        """Remove a file of an artifact, or its second half: nothing is complete any more, and no row is wrong."""
        before, target = self.model.get(path), self.folder / path / file
        # Rows without a description come back with the next one, so that descriptions are only cut
        if not target.exists() or (how == "absent" and file.endswith("zarr.json")):
            return
        if how == "absent":
            target.unlink()
        else:
            target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
        if before is not None:
            self.damaged[path] = before.digest
        left = self.present(path)
        assert left is None or (before is not None and left.digest == before.digest and left.rows <= before.rows)
        assert left is None or not left.complete
        self.model.pop(path, None)
        if left is not None:
            self.model[path] = left

    @rule(keep=keeps, removals=st.none() | st.integers(0, 9), old=st.booleans())
    def collect(self, keep: Keep, removals: int | None, old: bool) -> None:
        """Remove what is not needed, and be interrupted in it."""
        inventory = take_inventory(self.workspace)
        inventory = replace(inventory, taken=inventory.taken + timedelta(days=9))
        collection = plan_collection(inventory, keep=keep, older_than=timedelta(days=1) if old else None)
        files: Any = InterruptedFiles(self.workspace.files, -1 if removals is None else removals)
        before = dict(self.model)
        protected = not old and not self.is_finished()
        with contextlib.suppress(Interrupted):
            collect(replace(self.workspace, files=files), collection)
        for path, content in before.items():
            left = self.present(path)
            if content.complete and (protected or keep in PATHS[path]):
                assert left == content, f"{path} was needed"
            elif left is None:
                del self.model[path]
            else:
                assert left == content or not left.complete
                self.model[path] = left

    def is_finished(self) -> bool:
        """Return whether the edit has its video and report, and nothing has rows but is not complete."""
        begun = any(content.rows and not content.complete for content in self.model.values())
        return not begun and all(path in self.model and self.model[path].complete for path in (VIDEO, REPORT))

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


@pytest.fixture
def states() -> Iterator[Workspaces]:
    """Return a workspace with rules that a test follows in its own order."""
    states = Workspaces()
    yield states
    states.is_absent_or_whole_and_never_wrong()
    states.teardown()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("keep", ["results", "edits", "all"])
def test_of_a_finished_clip_a_collection_leaves_exactly_what_is_kept(keep: Keep, old: bool, states: Workspaces) -> None:
    for path in PATHS:
        states.finish(path, FIRST)
    states.collect(keep, None, old)
    assert set(states.model) == {path for path, kept in PATHS.items() if keep in kept}


@pytest.mark.parametrize(("path", "file"), [(FRAMES, "rows/c/1/0"), (VIDEO, "facts.json"), (REPORT, "complete.json")])
@pytest.mark.parametrize("how", ["absent", "cut"])
def test_of_a_clip_with_a_damaged_artifact_only_an_old_one_is_collected(
    path: str, file: str, how: Damage, states: Workspaces
) -> None:
    for each in PATHS:
        states.finish(each, FIRST)
    states.damage(path, file, how)
    states.collect("results", None, False)
    assert set(states.model) == set(PATHS)
    states.collect("results", None, True)
    assert set(states.model) == {VIDEO, REPORT} - {path}


@pytest.mark.parametrize("shards", [0, 1])
def test_what_lacks_its_last_rows_is_not_completed(shards: int, states: Workspaces) -> None:
    states.complete_too_early(VIDEO, FIRST, shards)
    states.finish(VIDEO, FIRST)


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize(
    ("file", "how"), [*((file, "cut") for file in FILES), *((file, "absent") for file in FILES if "zarr" not in file)]
)
def test_a_damaged_artifact_does_not_count_and_is_written_again(
    file: str, how: Damage, digest: str, states: Workspaces
) -> None:
    states.finish(VIDEO, FIRST)
    states.damage(VIDEO, file, how)
    states.finish(VIDEO, digest)
    assert states.model == {VIDEO: Content(digest, ROWS, True)}


def test_an_artifact_counts_again_once_its_damaged_row_is_written_again(states: Workspaces) -> None:
    states.finish(FRAMES, FIRST)
    states.damage(FRAMES, "rows/c/0/0", "cut")
    states.write(FRAMES, FIRST, 1, complete=False)
    assert states.model == {FRAMES: Content(FIRST, ROWS, True)}


def test_a_record_counts_again_when_its_lost_file_was_written_and_a_later_write_failed(states: Workspaces) -> None:
    states.finish(FRAMES, FIRST)
    states.damage(FRAMES, "facts.json", "absent")
    states.crash(FRAMES, FIRST, 1, "error")
    assert states.model == {FRAMES: Content(FIRST, ROWS, True)}


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("removals", range(6))
def test_an_interrupted_collection_leaves_no_rows_to_another_digest(
    removals: int, digest: str, states: Workspaces
) -> None:
    states.finish(INVERSION, FIRST)
    states.collect("results", removals, True)
    assert not any(content.complete for content in states.model.values()) or removals == 0
    states.write(INVERSION, digest, 0, True)
    states.finish(INVERSION, digest)


@pytest.mark.parametrize("effect", ["error", "half", "lost"])
def test_of_writes_that_fail_one_by_one_nothing_wrong_is_left(effect: Effect, states: Workspaces) -> None:
    for number in range(10):
        states.crash(VIDEO, FIRST, number, effect)
        states.crash(VIDEO, SECOND, number, effect)
        states.is_absent_or_whole_and_never_wrong()
    assert states.model[VIDEO].complete


@pytest.mark.parametrize("digest", DIGESTS)
def test_another_description_leaves_no_record_and_no_rows(digest: str, states: Workspaces) -> None:
    states.finish(VIDEO, FIRST)
    states.require_with_another_description(VIDEO, digest)
    states.is_absent_or_whole_and_never_wrong()
    states.write(VIDEO, digest, ROWS, complete=False)  # the rows that the record would list
    states.is_absent_or_whole_and_never_wrong()
    states.finish(VIDEO, digest)


@pytest.mark.usefixtures("other_process")
def test_whatever_happens_an_artifact_is_absent_or_whole_and_what_is_needed_stays() -> None:
    short = settings(max_examples=8, stateful_step_count=12, phases=[Phase.generate])
    run_state_machine_as_test(Workspaces, settings=short)


@pytest.mark.slow
@pytest.mark.usefixtures("other_process")
def test_whatever_happens_for_minutes_an_artifact_is_absent_or_whole_and_what_is_needed_stays() -> None:
    long = settings(max_examples=400, stateful_step_count=40, derandomize=False)
    run_state_machine_as_test(Workspaces, settings=long)
