from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from storage import ArtifactRef, Workspace, WorkspaceError, open_artifact


def test_a_folder_is_created_and_known_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Workspace.open("made/here").url == str(tmp_path / "made" / "here")
    assert (tmp_path / "made" / "here").is_dir()


def test_a_file_url_is_the_folder_it_names(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    assert Workspace.open(folder.as_uri()).url == str(folder)


def test_opening_leaves_nothing_behind(tmp_path: Path) -> None:
    Workspace.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "empty"),
        ("nonsense://x", "nonsense"),
        ("file://host/x", "three slashes"),
        ("/proc/wave", "cannot be created"),
        ("http://127.0.0.1:1/x", "cannot be written|package is missing"),
    ],
)
def test_a_workspace_that_cannot_be_used_gets_one_sentence(url: str, reason: str) -> None:
    with pytest.raises(WorkspaceError, match=reason) as caught:
        Workspace.open(url)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_folders_place_gets_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match="cannot be created"):
        Workspace.open(tmp_path / "file")


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(WorkspaceError, match=r"package is missing: .*s3fs"):
        Workspace.open("s3://bucket/prefix")


@pytest.mark.parametrize("path", ["", "/etc", "../x", "a/../b", "a//b", "a/", ".hidden", "a b", "a\\b", "~", "a\n"])
def test_a_path_that_could_leave_the_workspace_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="no path inside"):
        Workspace.open(tmp_path).ref(path, "d")


def test_a_reference_survives_json_and_finds_its_artifact(workspace: Workspace) -> None:
    ref = workspace.ref("clips/c/source", "d")
    workspace.artifact(ref).write_bytes("a.bin", b"1")
    assert ArtifactRef.from_dict(json.loads(json.dumps(ref.to_dict()))) == ref
    assert open_artifact(ref).read_bytes("a.bin") == b"1"


@pytest.mark.parametrize("data", [{}, {"workspace": "w", "path": "p"}, {"workspace": "w", "path": "p", "digest": 1}])
def test_a_damaged_reference_is_refused(data: dict[str, str]) -> None:
    with pytest.raises(WorkspaceError, match="not a reference"):
        ArtifactRef.from_dict(data)


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
