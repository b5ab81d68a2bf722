from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from storage.files import atomic_path, is_partial, write_atomic
from storage.workspace import Workspace


def test_a_written_file_can_be_read_listed_and_deleted(workspace: Workspace) -> None:
    files = workspace.files
    files.write("a/b/one", b"1")
    files.write("a/two", b"22")
    assert files.read("a/b/one") == b"1"
    assert dict(files.sizes("a")) == {"b/one": 1, "two": 2}
    assert dict(files.read_many(["a/two", "a/absent"])) == {"a/two": b"22"}
    files.delete(["a/two", "a/absent"])
    assert dict(files.sizes()) == {"a/b/one": 1}


def test_the_sizes_of_keys_leave_out_absent_files_and_folders(workspace: Workspace) -> None:
    files = workspace.files
    files.write("a/one", b"1")
    files.write("two", b"22")
    assert dict(files.sizes_of(["two", "a/one", "absent", "a", "two/below"])) == {"two": 2, "a/one": 1}
    assert dict(files.sizes_of([])) == {}


def test_a_listing_has_the_time_of_the_last_write(workspace: Workspace) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    workspace.files.write("a/b/one", b"1")
    workspace.files.write("a/two", b"22")
    entries = workspace.files.entries("a")
    assert {key: entry.size for key, entry in entries.items()} == {"b/one": 1, "two": 2}
    for entry in entries.values():
        assert entry.modified is not None
        assert before <= entry.modified <= datetime.now(UTC) + timedelta(seconds=1)


def test_a_folder_that_does_not_exist_lists_as_empty(workspace: Workspace) -> None:
    assert dict(workspace.files.sizes("absent")) == {}
    assert dict(workspace.files.entries("absent")) == {}


def test_a_file_that_does_not_exist_is_not_found(workspace: Workspace) -> None:
    with pytest.raises(FileNotFoundError):
        workspace.files.read("absent")
    with pytest.raises(FileNotFoundError), workspace.files.local_copy("absent"):
        pass


def test_a_listing_leaves_out_folders_with_a_longer_name(workspace: Workspace) -> None:
    workspace.files.write("clip/a", b"1")
    workspace.files.write("clip2/a", b"22")
    assert dict(workspace.files.sizes("clip")) == {"a": 1}


def test_an_output_appears_only_when_its_context_ends_without_an_error(workspace: Workspace) -> None:
    with workspace.files.local_output("x/video.mp4") as path:
        assert path.suffix == ".mp4"
        path.write_bytes(b"frames")
        assert not [key for key in workspace.files.sizes("x") if not is_partial(key)]
    with workspace.files.local_copy("x/video.mp4") as copy:
        assert copy.read_bytes() == b"frames"


def test_a_large_file_is_stored_and_copied_unchanged(workspace: Workspace) -> None:
    content = np.random.default_rng(0).bytes(12_000_000)  # several parts of an upload
    with workspace.files.local_output("x/video.mp4") as path:
        path.write_bytes(content)
    assert workspace.files.sizes_of(["x/video.mp4"]) == {"x/video.mp4": len(content)}
    with workspace.files.local_copy("x/video.mp4") as copy:
        assert copy.read_bytes() == content


def test_a_failed_output_leaves_the_old_file_and_no_temporary_one(workspace: Workspace) -> None:
    workspace.files.write("x/video.mp4", b"old")

    def fail() -> None:
        with workspace.files.local_output("x/video.mp4") as path:
            path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert dict(workspace.files.sizes()) == {"x/video.mp4": 3}


def test_deleting_the_last_file_removes_its_empty_folders(tmp_path: Path) -> None:
    files = Workspace.open(tmp_path).files
    files.write("a/b/c", b"")
    files.delete(["a/b/c"])
    assert list(tmp_path.iterdir()) == []


def test_an_atomic_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    write_atomic(path, b"a long first version")
    write_atomic(path, b"short")
    assert path.read_bytes() == b"short"
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def test_partial_files_are_recognised(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "x.json") as temporary:
        temporary.touch()
        assert is_partial(f"clips/{temporary.name}")
    assert is_partial("frames/c/0/0.3f2a.partial")
    assert not is_partial("partial/c/0")
