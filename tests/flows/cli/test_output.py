from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from flows.cli.output import copy_out, deliver
from storage.reference import ArtifactRef
from storage.workspace import open_artifact
from tasks.errors import TaskInputError
from tasks.planning.stages import ENCODE
from tests._plans import planned


@pytest.fixture
def ref(tmp_path: Path) -> ArtifactRef:
    ref = ArtifactRef(workspace=str(tmp_path / "workspace"), path="clips/a/video", digest="0" * 24)
    open_artifact(ref).write_bytes("edited.mp4", b"edited")
    return ref


def test_a_file_is_copied_whole(ref: ArtifactRef, tmp_path: Path) -> None:
    copy_out(ref, "edited.mp4", tmp_path / "new" / "out.mp4")
    assert (tmp_path / "new" / "out.mp4").read_bytes() == b"edited"


def test_a_path_that_cannot_be_written_is_one_sentence_that_says_where_the_result_is(
    ref: ArtifactRef, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TaskInputError, match=r"cannot be written .*clips/a/video/edited\.mp4"):
        copy_out(ref, "edited.mp4", tmp_path / "file" / "out.mp4")


def test_a_folder_of_pictures_is_unpacked_and_replaces_an_older_one_as_a_whole(tmp_path: Path) -> None:
    pictures = io.BytesIO()
    with zipfile.ZipFile(pictures, "w") as target:
        target.writestr("000000.png", b"first")
    plan = planned(workspace=str(tmp_path / "workspace"), format="png")
    artifact = open_artifact(plan[ENCODE].ref)
    artifact.write_bytes("edited.zip", pictures.getvalue())
    artifact.complete()
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "000009.png").write_bytes(b"old")
    assert deliver(plan, f"{folder}/") == f"{folder}/"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"000000.png": b"first"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "workspace"}
    deliver(plan, str(tmp_path / "out.zip"))
    assert (tmp_path / "out.zip").read_bytes() == pictures.getvalue()
