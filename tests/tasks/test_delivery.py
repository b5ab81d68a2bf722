"""Outputs: videos and their table in folders and object stores, and tar files."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import uuid
from pathlib import Path

import pytest

from storage.errors import WorkspaceError
from storage.reference import ArtifactRef
from storage.workspace import Workspace
from tasks import delivery
from tasks.artifacts import EDITED
from tasks.delivery import deliver_video, is_delivered, output_location, write_metadata, write_webdataset
from tasks.errors import TaskInputError


@pytest.fixture(params=["folder", "file", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = tmp_path / "out"
    return {"folder": str(folder), "file": folder.as_uri(), "memory": f"memory://{uuid.uuid4().hex}/some/out"}[
        request.param
    ]


def video(workspace: Path, name: str, content: bytes) -> ArtifactRef:
    artifact = Workspace.open(workspace).artifact(Workspace.open(workspace).ref(f"clips/c/{name}", name))
    artifact.write_bytes(EDITED, content)
    return artifact.complete()


def stored(output: str) -> dict[str, bytes]:
    """Return the files below an output, by path."""
    if output.startswith("memory://"):
        bucket, _, prefix = output.removeprefix("memory://").partition("/")
        files = Workspace.open(f"memory://{bucket}").files
    else:
        files, prefix = Workspace.open(output).files, ""
    return {key: files.read(f"{prefix}/{key}".lstrip("/")) for key in files.sizes(prefix)}


def table(output: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(stored(output)["metadata.csv"].decode())))


def test_a_video_is_delivered_to_folders_and_stores(output: str, tmp_path: Path) -> None:
    ref = video(tmp_path / "w", "a", b"a video")
    location = output_location(output, "cats/a #1")
    assert not is_delivered(ref, location)
    deliver_video(ref, location)
    assert is_delivered(ref, location)
    assert stored(output) == {"cats/a #1.mp4": b"a video"}
    assert not is_delivered(video(tmp_path / "w", "b", b"another video"), location)


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    ref = video(tmp_path / "w", "a", b"a video")
    (tmp_path / "file").write_text("")
    with pytest.raises(TaskInputError, match="cannot be written"):
        deliver_video(ref, str(tmp_path / "file" / "a.mp4"))
    with pytest.raises(WorkspaceError, match="use a folder"):
        deliver_video(ref, "ftp://host/a.mp4")


# --- metadata: the rules of https://huggingface.co/docs/datasets/video_dataset ----------------------------------------


def test_there_is_one_metadata_file_and_it_names_every_video_relative_to_itself(output: str, tmp_path: Path) -> None:
    names = ["a.mp4", "cats/b.mp4"]
    for name in names:
        deliver_video(video(tmp_path / "w", "a", b"a video"), f"{output}/{name}")
    write_metadata(output, [{"file_name": name, "prompt": "a star, blue"} for name in names])
    found = stored(output)
    assert [name for name in found if name.rpartition("/")[2].startswith("metadata.")] == ["metadata.csv"]
    assert {row["file_name"] for row in table(output)} == {name for name in found if name.endswith(".mp4")}
    assert table(output)[0] == {"file_name": "a.mp4", "prompt": "a star, blue"}


def test_rows_of_other_runs_stay_in_the_metadata_as_they_are(output: str) -> None:
    write_metadata(output, [{"file_name": "a.mp4", "id": "007", "steps": 3}, {"file_name": "b.mp4", "id": "NA"}])
    write_metadata(output, [{"file_name": "b.mp4", "id": "b", "tag": "x"}, {"file_name": "c.mp4", "id": "c"}])
    assert [(row["file_name"], row["id"], row["steps"], row["tag"]) for row in table(output)] == [
        ("a.mp4", "007", "3.0", ""),
        ("b.mp4", "b", "", "x"),
        ("c.mp4", "c", "", ""),
    ]


# --- WebDataset -------------------------------------------------------------------------------------------------------


def test_tar_files_contain_each_sample_as_a_pair_with_one_stem_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_SHARD_BYTES", 4000)
    samples = [
        (f"clip{n}", video(tmp_path / "w", f"{n}", bytes([n]) * 700), {"id": n, "prompt": "ein Stück"})
        for n in range(5)
    ]
    names = write_webdataset(str(tmp_path / "out"), samples)
    assert len(names) > 1
    members = []
    for name in names:
        with tarfile.open(tmp_path / "out" / name) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                members.append((member.name, file.read()))
    assert [name for name, _ in members] == [f"clip{n}.{suffix}" for n in range(5) for suffix in ("mp4", "json")]
    assert [data for name, data in members if name.endswith(".mp4")] == [bytes([n]) * 700 for n in range(5)]
    assert json.loads(members[7][1]) == {"id": 3, "prompt": "ein Stück"}


def test_the_same_samples_give_the_same_tar_files_and_fewer_leave_none_of_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_SHARD_BYTES", 1)
    samples = [(f"clip{n}", video(tmp_path / "w", f"{n}", b"video"), {"id": n}) for n in range(3)]
    assert write_webdataset(str(tmp_path / "out"), samples) == ["000000.tar", "000001.tar", "000002.tar"]
    before = stored(str(tmp_path / "out"))
    write_webdataset(str(tmp_path / "out"), samples)
    assert stored(str(tmp_path / "out")) == before
    write_webdataset(str(tmp_path / "out"), samples[:1])
    assert stored(str(tmp_path / "out")) == {"000000.tar": before["000000.tar"]}


def test_shards_leave_the_tar_files_of_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_SHARD_BYTES", 1)
    samples = [(f"clip{n}", video(tmp_path / "w", f"{n}", b"video"), {"id": n}) for n in range(2)]
    write_webdataset(str(tmp_path / "out"), samples, shard="1/2")
    write_webdataset(str(tmp_path / "out"), samples[:1], shard="2/2")
    assert set(stored(str(tmp_path / "out"))) == {"1-of-2-000000.tar", "1-of-2-000001.tar", "2-of-2-000000.tar"}


def test_the_table_of_videos_has_no_formulas_and_keeps_what_is_there(tmp_path: Path) -> None:
    write_metadata(str(tmp_path), [{"file_name": "a.mp4", "prompt": "=1+1", "seed": 3}])
    write_metadata(str(tmp_path), [{"file_name": "b.mp4", "prompt": "-1", "seed": -4}])
    with (tmp_path / "metadata.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["file_name", "prompt", "seed"],
            ["a.mp4", "'=1+1", "3"],
            ["b.mp4", "-1", "-4"],
        ]
