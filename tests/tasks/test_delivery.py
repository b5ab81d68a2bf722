"""Outputs: videos and their table in folders and object stores, and tar files."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import uuid
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from storage.errors import WorkspaceError
from storage.reference import ArtifactRef
from storage.workspace import Workspace
from tasks import delivery
from tasks.artifacts import EDITED
from tasks.delivery import (
    Sample,
    check_replaceable,
    check_tar_files,
    deliver_video,
    is_delivered,
    output_location,
    write_metadata,
    write_webdataset,
)
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


ROW = {"dataset": "m", "id": "a", "variant": 0}


def deliver(ref: ArtifactRef, location: str, row: Mapping[str, Any] = ROW) -> None:
    deliver_video(ref, location, record=recording(ref, row))


def recording(ref: ArtifactRef, row: Mapping[str, Any] = ROW) -> Callable[[Mapping[str, str]], bytes]:
    return lambda output: json.dumps({"edit": ref.digest, "row": dict(row), "output": dict(output)}).encode()


def sample(stem: str, ref: ArtifactRef, values: Mapping[str, Any]) -> Sample:
    return Sample(stem=stem, video=ref, values=values, record=recording(ref))


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
    location = output_location(output, "cats/a #1", suffix=".mp4")
    assert not is_delivered(ref, location)
    deliver(ref, location)
    assert is_delivered(ref, location)
    found = stored(output)
    assert found.pop("cats/a #1.mp4") == b"a video"
    (record,) = map(json.loads, found.values())
    assert set(found) == {"cats/a #1.mp4.provenance.json"}
    assert record["output"] == {"name": "a #1.mp4", "digest": sha256(b"a video").hexdigest()[:24]}
    assert not is_delivered(video(tmp_path / "w", "b", b"another video"), location)


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    ref = video(tmp_path / "w", "a", b"a video")
    (tmp_path / "file").write_text("")
    with pytest.raises(TaskInputError, match="cannot be written"):
        deliver(ref, str(tmp_path / "file" / "a.mp4"))
    with pytest.raises(WorkspaceError, match="use a folder"):
        deliver(ref, "ftp://host/a.mp4")


def test_what_this_row_made_is_replaced_and_nothing_else_unless_it_may_be(output: str, tmp_path: Path) -> None:
    location, first, second = f"{output}/a.mp4", *(video(tmp_path / "w", name, name.encode()) for name in "ab")
    check_replaceable(location, row=ROW)
    deliver(first, location)
    check_replaceable(location, row=ROW)
    deliver(second, location)
    assert stored(output)["a.mp4"] == b"b"
    with pytest.raises(TaskInputError, match=r"a\.mp4 exists, and this row is not known to have made it; --overwrite"):
        check_replaceable(location, row=ROW | {"dataset": "another"})
    check_replaceable(location, row=ROW | {"dataset": "another"}, overwrite=True)


def test_an_output_that_somebody_changed_is_kept(tmp_path: Path) -> None:
    location, ref = tmp_path / "a.mp4", video(tmp_path / "w", "a", b"a video")
    deliver(ref, str(location))
    location.write_bytes(b"my video")
    with pytest.raises(TaskInputError, match="exists"):
        check_replaceable(str(location), row=ROW)
    location.with_name("a.mp4.provenance.json").unlink()
    with pytest.raises(TaskInputError, match="exists"):
        check_replaceable(str(location), row=ROW, video=ref)
    location.write_bytes(b"a video")  # by a version of this project that kept no record
    check_replaceable(str(location), row=ROW, video=ref)
    with pytest.raises(TaskInputError, match="exists"):
        check_replaceable(str(location), row=ROW)


def test_a_delivery_that_was_interrupted_after_its_record_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = str(tmp_path / "a.mp4")
    deliver(video(tmp_path / "w", "a", b"a video"), location)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    other = video(tmp_path / "w", "b", b"another video")
    monkeypatch.setattr(delivery.shutil, "copyfile", full)
    with pytest.raises(TaskInputError, match="No space left"):
        deliver(other, location)
    assert Path(location).read_bytes() == b"a video"
    check_replaceable(location, row=ROW)


# --- metadata: the rules of https://huggingface.co/docs/datasets/video_dataset ----------------------------------------


def test_there_is_one_metadata_file_and_it_names_every_video_relative_to_itself(output: str, tmp_path: Path) -> None:
    names = ["a.mp4", "cats/b.mp4"]
    for name in names:
        deliver(video(tmp_path / "w", "a", b"a video"), f"{output}/{name}")
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


def test_tar_files_contain_the_files_of_each_sample_with_one_stem_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_SHARD_BYTES", 4000)
    samples = [
        sample(f"clip{n}", video(tmp_path / "w", f"{n}", bytes([n]) * 700), {"id": n, "prompt": "ein Stück"})
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
    assert [name for name, _ in members] == [
        f"clip{n}.{suffix}" for n in range(5) for suffix in ("mp4", "json", "provenance.json")
    ]
    assert [data for name, data in members if name.endswith(".mp4")] == [bytes([n]) * 700 for n in range(5)]
    assert json.loads(members[10][1]) == {"id": 3, "prompt": "ein Stück"}


def test_the_same_samples_give_the_same_tar_files_and_fewer_leave_none_of_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_SHARD_BYTES", 1)
    samples = [sample(f"clip{n}", video(tmp_path / "w", f"{n}", b"video"), {"id": n}) for n in range(3)]
    assert write_webdataset(str(tmp_path / "out"), samples) == ["000000.tar", "000001.tar", "000002.tar"]
    before = stored(str(tmp_path / "out"))
    write_webdataset(str(tmp_path / "out"), samples)
    assert stored(str(tmp_path / "out")) == before
    write_webdataset(str(tmp_path / "out"), samples[:1])
    assert stored(str(tmp_path / "out")) == {"000000.tar": before["000000.tar"]}


def test_tar_files_are_replaced_only_where_a_data_set_made_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_tar_files(str(out))
    write_webdataset(str(out), [sample("a", video(tmp_path / "w", "a", b"video"), {})])
    check_tar_files(str(out))
    (out / "000001.tar").write_bytes(b"something else")
    with pytest.raises(TaskInputError, match=r"000001\.tar exists, and no data set made it; --overwrite replaces it"):
        check_tar_files(str(out))
    check_tar_files(str(out), overwrite=True)
    check_tar_files(str(out), shard="1/2")


def test_shards_leave_the_tar_files_of_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_SHARD_BYTES", 1)
    samples = [sample(f"clip{n}", video(tmp_path / "w", f"{n}", b"video"), {"id": n}) for n in range(2)]
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
