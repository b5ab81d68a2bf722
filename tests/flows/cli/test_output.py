from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.cli.output import check_output, copy_out, deliver
from storage.reference import ArtifactRef
from storage.workspace import Workspace, open_artifact
from tasks.errors import TaskInputError
from tasks.planning.stages import ENCODE


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


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("ftp://host/out.mp4", "--output takes a path, or s3://"),
        ("https://host/out.mp4", "--output takes a path, or s3://"),
        ("s3://bucket/out.avi", "must be a bucket and a name that ends in .mp4"),
        ("s3://out.mp4", "must be a bucket and a name"),
        ("s3://key:secret@bucket/out.mp4", "s3://***@bucket/out.mp4 contains a password"),
    ],
)
def test_an_output_by_url_that_cannot_be_written_is_refused(location: str, words: str) -> None:
    with pytest.raises(TaskInputError) as caught:
        check_output(location, video="clip.mp4")
    assert words in str(caught.value)


def test_the_edited_clip_is_written_to_a_path_a_file_url_or_an_object_store(ref: ArtifactRef, tmp_path: Path) -> None:
    plan: Any = {ENCODE: SimpleNamespace(ref=ref)}
    below = (tmp_path / "a b.mp4").as_uri()
    for location in (str(tmp_path / "out.mp4"), below, "memory://bucket-of-test-output/folder/out.mp4"):
        check_output(location, video="clip.mp4")
        assert deliver(plan, location) == location
    assert (tmp_path / "a b.mp4").read_bytes() == (tmp_path / "out.mp4").read_bytes() == b"edited"
    assert Workspace.open("memory://bucket-of-test-output").files.read("folder/out.mp4") == b"edited"
