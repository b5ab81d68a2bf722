from __future__ import annotations

import io
import json
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from flows.cli.formats import output_format
from flows.cli.output import check_output, check_overwrite, copy_out, deliver
from storage.digest import digest_file
from storage.reference import ArtifactRef
from storage.workspace import Workspace, open_artifact
from tasks.errors import TaskInputError
from tasks.planning.plan import EditPlan
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


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("ftp://host/out.mp4", "--output takes a path, or s3://"),
        ("https://host/out.mp4", "--output takes a path, or s3://"),
        ("s3://bucket/pictures/", "must be a bucket and the name of a file"),
        ("s3://out.mp4", "must be a bucket and the name of a file"),
        ("s3://key:secret@bucket/out.mp4", "s3://***@bucket/out.mp4 contains a password"),
    ],
)
def test_an_output_by_url_that_cannot_be_written_is_refused(location: str, words: str) -> None:
    with pytest.raises(TaskInputError) as caught:
        check_output(location, video="clip.mp4", overwrite=False)
    assert words in str(caught.value)


def test_the_edited_clip_is_written_to_a_path_a_file_url_or_an_object_store(ref: ArtifactRef, tmp_path: Path) -> None:
    plan = finished(tmp_path, b"edited")
    below = (tmp_path / "a b.mp4").as_uri()
    for location in (str(tmp_path / "out.mp4"), below, "memory://bucket-of-test-output/folder/out.mp4"):
        check_output(location, video="clip.mp4", overwrite=False)
        assert deliver(plan, location) == location
        check_overwrite(plan, location, overwrite=False)
    assert (tmp_path / "a b.mp4").read_bytes() == (tmp_path / "out.mp4").read_bytes() == b"edited"
    files = Workspace.open("memory://bucket-of-test-output").files
    assert files.read("folder/out.mp4") == b"edited"
    assert json.loads(files.read("folder/out.mp4.provenance.json"))["edit"] == plan[ENCODE].ref.digest


def test_an_object_that_this_edit_has_not_made_is_replaced_only_on_request(tmp_path: Path) -> None:
    location = "memory://bucket-of-overwritten-output/out.mp4"
    plan, other = (finished(tmp_path, b"edited", prompt=prompt) for prompt in ("a star", "a ring"))
    deliver(plan, location)
    with pytest.raises(TaskInputError, match="another edit has made it"):
        check_overwrite(other, location, overwrite=False)
    check_overwrite(other, location, overwrite=True)
    Workspace.open("memory://bucket-of-overwritten-output").files.delete(["out.mp4.provenance.json"])
    with pytest.raises(TaskInputError, match="no edit is known to have made it"):
        check_overwrite(plan, location, overwrite=False)


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
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.provenance.json", "workspace"}
    deliver(plan, str(tmp_path / "out.zip"))
    assert (tmp_path / "out.zip").read_bytes() == pictures.getvalue()


def finished(folder: Path, content: bytes, **request: Any) -> EditPlan:
    """Return the plan of an edit of which only the video is there."""
    plan = planned(workspace=str(folder / "workspace"), **request)
    artifact = open_artifact(plan[ENCODE].ref)
    artifact.write_bytes("edited.mp4", content)
    artifact.complete()
    return plan


def refused(plan: EditPlan, output: Path, *, overwrite: bool = False) -> str:
    """Return the reason why an output is not written, empty if it would be."""
    try:
        check_output(str(output), video="clip.mp4", overwrite=overwrite)
        check_overwrite(plan, str(output), overwrite=overwrite)
    except TaskInputError as error:
        return str(error)
    return ""


def test_only_an_output_that_this_edit_has_made_is_written_again(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    plan, other = (finished(tmp_path, b"edited", prompt=prompt) for prompt in ("a star", "a ring"))
    assert refused(plan, output) == ""
    deliver(plan, str(output))
    assert refused(plan, output) == ""
    assert "another edit has made it; --overwrite replaces it" in refused(other, output)
    assert refused(other, output, overwrite=True) == ""
    output.write_bytes(b"changed by a person")
    assert "no edit is known to have made it; --overwrite replaces it" in refused(plan, output)
    (tmp_path / "out.mp4.provenance.json").write_text("damaged")
    assert "no edit is known to have made it" in refused(plan, output)
    assert refused(plan, output, overwrite=True) == ""


def test_a_folder_with_other_files_than_pictures_is_never_replaced(tmp_path: Path) -> None:
    folder, plan = tmp_path / "out", planned(format="png")
    folder.mkdir()
    assert refused(plan, folder) == ""
    (folder / "000000.png").write_bytes(b"")
    assert "--overwrite replaces it" in refused(plan, folder)
    assert refused(plan, folder, overwrite=True) == ""
    (folder / "holiday.mp4").write_bytes(b"")
    assert "has other files than pictures, which would be lost" in refused(plan, folder, overwrite=True)


def test_the_provenance_next_to_an_output_says_what_made_it(tmp_path: Path) -> None:
    plan = finished(tmp_path, b"edited", prompt="a star", source_prompt="a ring", seed=7, model="/home/me/model")
    deliver(plan, str(tmp_path / "out.mp4"))
    text = (tmp_path / "out.mp4.provenance.json").read_text()
    found = json.loads(text)
    assert found["synthetic"] is True
    assert found["digital_source_type"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert (found["prompt"], found["source_prompt"], found["seed"]) == ("a star", "a ring", 7)
    assert found["prompt_sha256"] == sha256(b"a star").hexdigest()
    assert found["source"] == {"name": "clip", "digest": "c"}
    assert found["model"] == {"name": "model", "digest": "m"}
    assert found["settings"]["invert"]["inversion"]["seed"] == 7
    assert found["output"] == {"name": "out.mp4", "digest": digest_file(tmp_path / "out.mp4")}
    assert str(tmp_path) not in text
    deliver(plan, str(tmp_path / "out.mp4"))
    assert (tmp_path / "out.mp4.provenance.json").read_text() == text


@pytest.mark.parametrize("name", ["a" * 252 + ".mp4", "folder/" + "ü" * 128 + "/out.mp4", "new/" * 1100 + "out.mp4"])
def test_an_output_of_which_the_name_is_too_long_is_refused_before_it_is_computed(name: str, tmp_path: Path) -> None:
    location = str(tmp_path / name)
    assert output_format(location, chosen=None) == "mp4"
    with pytest.raises(TaskInputError, match="cannot be written"):
        check_output(location, video="clip.mp4", overwrite=False)


def test_the_longest_name_of_an_output_can_be_written(tmp_path: Path) -> None:
    plan = finished(tmp_path, b"edited")
    location = str(tmp_path / ("a" * (255 - len(".provenance.json.mp4")) + ".mp4"))
    check_output(location, video="clip.mp4", overwrite=False)
    deliver(plan, location)
    check_overwrite(plan, location, overwrite=False)
    with pytest.raises(TaskInputError, match="at most 239 bytes"):
        check_output(location.replace(".mp4", "a.mp4"), video="clip.mp4", overwrite=False)
