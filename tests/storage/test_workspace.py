from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from storage.errors import WorkspaceError
from storage.tables import read_runs
from storage.workspace import Workspace, open_artifact


def test_a_folder_is_known_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Workspace.open("made/here").url == str(tmp_path / "made" / "here")


def test_a_file_url_is_the_folder_it_names(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    assert Workspace.open(folder.as_uri()).url == str(folder)


def check_reads_as_empty(workspace: Workspace) -> None:
    for artifact in (workspace.artifact("a"), open_artifact(workspace.ref("a", "d"))):
        assert not artifact.is_complete()
        assert artifact.completed_parts() == set()
        assert artifact.readable_prefix("frames") == 0
        assert not artifact.has_file("report.json")
        with pytest.raises(WorkspaceError):
            artifact.read_bytes("report.json")
    assert read_runs(workspace).empty
    assert workspace.usage() == 0


def test_a_new_workspace_reads_as_empty(workspace: Workspace) -> None:
    check_reads_as_empty(workspace)


def test_a_workspace_that_is_opened_twice_has_one_content(workspace: Workspace) -> None:
    workspace.check_writable()
    workspace.artifact(workspace.ref("a", "d")).write_bytes("b.bin", b"1")
    again = Workspace.open(workspace.url)
    assert again.artifact("a").read_bytes("b.bin") == b"1"
    assert set(again.files.sizes()) == {"zarr.json", "a/zarr.json", "a/b.bin"}


@pytest.mark.parametrize("absent", [".", "made/here"])
def test_opening_and_reading_write_nothing(absent: str, tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime_ns  # changes when a file is created in the folder, even if it is removed again
    check_reads_as_empty(Workspace.open(tmp_path / absent))
    assert list(tmp_path.iterdir()) == []
    assert tmp_path.stat().st_mtime_ns == before


def test_a_folder_that_is_absent_is_created_by_the_first_write(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "made" / "here")
    workspace.artifact(workspace.ref("a", "d")).write_bytes("b.bin", b"1")
    assert (tmp_path / "made" / "here" / "a" / "b.bin").read_bytes() == b"1"


def test_checking_creates_the_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    Workspace.open(tmp_path / "made" / "here").check_writable()
    assert list((tmp_path / "made" / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "empty"),
        ("nonsense://x", "use a folder, file://, s3://, gs://, az:// or memory://"),
        ("http://127.0.0.1/x", "use a folder"),
        ("file://host/x", "three slashes"),
        ("file://", "three slashes"),
        ("s3://", "does not name a bucket"),
        ("s3:///prefix", "Unable to recognise URL"),
        ("~no-such-user/x", "there is no such home folder"),
    ],
)
def test_a_url_that_is_not_understood_is_refused_in_one_sentence(url: str, reason: str) -> None:
    with pytest.raises(WorkspaceError, match=reason) as caught:
        Workspace.open(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("below", ["", "/deep/below"])
def test_a_file_at_the_path_or_above_it_is_refused_in_one_sentence(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match=r"cannot use the workspace .*/file is not a folder$"):
        Workspace.open(f"{tmp_path / 'file'}{below}")


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence() -> None:
    with pytest.raises(WorkspaceError, match="cannot be written") as caught:
        Workspace.open("/proc/wave").check_writable()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "/etc", "../x", "a/../b", "a//b", "a/", ".hidden", "a b", "a\\b", "~", "a\n"])
def test_a_path_that_could_leave_the_workspace_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="not a path inside"):
        Workspace.open(tmp_path).ref(path, "d")


def test_a_reference_opens_its_artifact(workspace: Workspace) -> None:
    ref = workspace.ref("clips/c/source", "d")
    workspace.artifact(ref).write_bytes("a.bin", b"1")
    assert open_artifact(ref).read_bytes("a.bin") == b"1"


def test_usage_counts_bytes_below_a_path(workspace: Workspace) -> None:
    workspace.files.write("a/x", b"123")
    workspace.files.write("b/x", b"4567")
    assert (workspace.usage("a"), workspace.usage(), workspace.usage("absent")) == (3, 7, 0)


def test_the_workspace_is_one_zarr_hierarchy(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    artifact = workspace.artifact(workspace.ref("clips/c/source", "d"))
    artifact.require_array("frames", shape=(2, 3), chunks=(1, 3), dtype="uint8")
    artifact.write_region("frames", 0, np.arange(6, dtype=np.uint8).reshape(2, 3))
    array = zarr.open_group(tmp_path, mode="r")["clips/c/source/frames"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(array[:], [[0, 1, 2], [3, 4, 5]])


def test_a_folder_that_cannot_be_reached_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(WorkspaceError, match=r"it cannot be reached \(Permission denied\)"):
        Workspace.open(tmp_path)
