from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli.output import copy_out
from storage.reference import ArtifactRef
from storage.workspace import open_artifact
from tasks.errors import TaskInputError


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
