from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from zarr.abc.store import Store

from storage import arrays
from storage.artifact import Artifact
from storage.errors import StorageError, WorkspaceError
from storage.workspace import Workspace
from tests._artifacts import artifact_of, with_rows

Damage = Callable[[Path], None]


@pytest.fixture
def local(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


# --- completion ---------------------------------------------------------------------------------------------------


def test_an_artifact_is_complete_once_its_record_is_written(workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 4)
    artifact.write_json("report.json", {"a": (1, 2)})
    assert not artifact.is_complete()
    ref = artifact.complete({"seconds": 1.5})
    again = workspace.artifact(ref)
    assert again.is_complete()
    assert again.metadata == {"seconds": 1.5}
    assert again.read_json("report.json") == {"a": [1, 2]}
    np.testing.assert_array_equal(again.read_region("rows")[:, 0, 0], [0, 1, 2, 3])


def test_the_record_lists_every_chunk_and_file_with_its_size(local: Workspace, tmp_path: Path) -> None:
    artifact = with_rows(artifact_of(local), 2, of=2)
    artifact.write_bytes("audio.mka", b"12345")
    artifact.complete_part("first")
    artifact.complete()
    folder = tmp_path / "clips/c/stage"
    record = json.loads((folder / "complete.json").read_text())
    assert record["files"] == {"audio.mka": 5}
    assert record["arrays"] == {
        "rows": {key: (folder / "rows" / key).stat().st_size for key in ("c/0/0/0", "c/1/0/0", "zarr.json")}
    }


@pytest.mark.parametrize("key", ["rows/c/2/0/0", "rows/zarr.json", "report.json", "complete.json", "zarr.json"])
def test_a_missing_file_makes_an_artifact_incomplete(key: str, workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 4)
    artifact.write_json("report.json", {})
    artifact.complete()
    workspace.files.delete([f"clips/c/stage/{key}"])
    assert not artifact.is_complete()


@pytest.mark.parametrize("key", ["rows/c/2/0/0", "report.json", "complete.json", "zarr.json"])
def test_a_truncated_file_makes_an_artifact_incomplete(key: str, workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 4)
    artifact.write_json("report.json", {})
    artifact.complete()
    workspace.files.write(f"clips/c/stage/{key}", workspace.files.read(f"clips/c/stage/{key}")[:-1])
    assert not artifact.is_complete()


def test_a_record_of_another_digest_does_not_count(workspace: Workspace) -> None:
    with_rows(artifact_of(workspace, "old"), 4).complete()
    assert not artifact_of(workspace, "new").is_complete()
    assert artifact_of(workspace, "old").is_complete()
    assert workspace.artifact("clips/c/stage").is_complete()


def test_an_artifact_that_lacks_a_chunk_cannot_be_completed(workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 3)
    with pytest.raises(WorkspaceError, match="lacks 1 chunks, the first c/3/0/0"):
        artifact.complete()
    assert not artifact.is_complete()


def test_completing_twice_writes_the_same_record(workspace: Workspace) -> None:
    records = []
    for _ in range(2):
        with_rows(artifact_of(workspace), 4).complete({"b": 1, "a": 2})
        records.append(workspace.files.read("clips/c/stage/complete.json"))
    assert records[0] == records[1]


def test_metadata_without_a_json_form_is_refused_before_anything_is_recorded(workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 4)
    with pytest.raises(StorageError, match="JSON"):
        artifact.complete({"psnr": float("inf")})
    assert not artifact.is_complete()


def test_an_artifact_without_arrays_can_be_complete(workspace: Workspace) -> None:
    artifact = artifact_of(workspace)
    artifact.write_bytes("edited.mp4", b"1")
    assert workspace.artifact(artifact.complete()).is_complete()


def test_an_incomplete_artifact_has_no_record(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="not complete"):
        artifact_of(workspace).record()


def test_an_artifact_opened_by_its_path_cannot_be_written(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="by a reference"):
        workspace.artifact("clips/c/stage").write_bytes("a", b"")


def test_discarding_removes_everything_under_the_artifact_and_nothing_else(workspace: Workspace) -> None:
    with_rows(artifact_of(workspace), 4).complete()
    workspace.artifact(workspace.ref("clips/c/stage2", "d")).write_bytes("kept", b"1")
    artifact_of(workspace).discard()
    assert workspace.usage("clips/c/stage") == 0
    assert workspace.artifact("clips/c/stage2").read_bytes("kept") == b"1"


@pytest.mark.parametrize("kept", range(9))
def test_an_interrupted_removal_leaves_nothing_that_passes_for_finished_work(kept: int, local: Workspace) -> None:
    artifact = with_rows(artifact_of(local), 4)
    artifact.complete_part("first", regions={"rows": (0, 2)})
    artifact.complete()
    removed: list[str] = []

    class Interrupted(Exception):
        pass

    def delete(keys: object) -> None:
        for key in list(keys)[:kept]:  # type: ignore[call-overload]
            shutil.os.unlink(f"{local.url}/{key}")  # type: ignore[attr-defined]
            removed.append(key)
        raise Interrupted

    files = type("InterruptedFiles", (), {"sizes": staticmethod(local.files.sizes), "delete": staticmethod(delete)})()
    discarded = Artifact(workspace_url=local.url, files=files, store=local.store, path="clips/c/stage", digest="d1")
    with pytest.raises(Interrupted):
        discarded.discard()
    rest = artifact_of(local)
    assert rest.is_complete() == (kept == 0)
    assert rest.completed_parts() == ({"first"} if kept < 2 else set())
    with_rows(rest, 0)
    surviving = rest.readable_prefix("rows")
    np.testing.assert_array_equal(rest.read_region("rows", 0, surviving)[:, 0, 0], np.arange(surviving))


# --- content of another digest ---------------------------------------------------------------------------------------


def test_content_of_another_digest_is_not_read(workspace: Workspace) -> None:
    old = with_rows(artifact_of(workspace, "old"), 3)
    old.complete_part("first")
    old.write_bytes("audio.mka", b"old")
    new = artifact_of(workspace, "new")
    assert (new.readable_prefix("rows"), new.completed_parts(), new.has_file("audio.mka")) == (0, set(), False)
    with pytest.raises(WorkspaceError, match="no file"):
        new.read_bytes("audio.mka")


def test_the_first_write_removes_content_of_another_digest(workspace: Workspace) -> None:
    old = with_rows(artifact_of(workspace, "old"), 4)
    old.write_bytes("audio.mka", b"old")
    old.complete()
    new = with_rows(artifact_of(workspace, "new"), 1)
    assert new.readable_prefix("rows") == 1
    assert not workspace.artifact("clips/c/stage").is_complete()
    assert not new.has_file("audio.mka")


# --- arrays -------------------------------------------------------------------------------------------------------


def test_requiring_the_same_array_again_keeps_its_values(workspace: Workspace) -> None:
    with_rows(artifact_of(workspace), 3)
    assert with_rows(artifact_of(workspace), 0).readable_prefix("rows") == 3


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (5, 2, 3)},
        {"chunks": (2, 2, 3)},
        {"dtype": "float64"},
        {"dimension_names": ("a", "b", "c")},
        {"attributes": {"unit": "px"}},
    ],
)
def test_requiring_an_array_with_another_description_creates_it_empty(
    change: dict[str, object], workspace: Workspace
) -> None:
    artifact = with_rows(artifact_of(workspace), 4)
    artifact.complete_part("first")
    artifact.complete()
    same = {"shape": (4, 2, 3), "chunks": (1, 2, 3), "dtype": "float32"}
    array = artifact.require_array("rows", **{**same, **change})  # type: ignore[arg-type]
    assert not np.asarray(array[:]).any()
    assert artifact.readable_prefix("rows") == 0
    assert not artifact.is_complete()
    assert artifact.completed_parts() == set()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"zarr_format": 3, "node_type": "array"}'])
def test_an_array_with_a_damaged_description_is_created_again_and_not_read(text: bytes, workspace: Workspace) -> None:
    with_rows(artifact_of(workspace), 4)
    workspace.files.write("clips/c/stage/rows/zarr.json", text)
    assert artifact_of(workspace).readable_prefix("rows") == 0
    with pytest.raises(WorkspaceError, match="clips/c/stage/rows is damaged"):
        artifact_of(workspace).array("rows")
    artifact_of(workspace).require_array("rows", shape=(4, 2, 3), chunks=(1, 2, 3), dtype="float32")
    assert artifact_of(workspace).readable_prefix("rows") == 0
    assert with_rows(artifact_of(workspace), 4).readable_prefix("rows") == 4


@pytest.mark.parametrize("length", [0, 7, 40])
def test_a_shard_that_was_cut_short_at_the_end_of_an_array_is_written_again(length: int, workspace: Workspace) -> None:
    artifact = artifact_of(workspace)
    artifact.require_array("rows", shape=(5, 3), chunks=(1, 3), shard_rows=4, dtype="float32")
    artifact.write_region("rows", 0, np.ones((4, 3), np.float32))
    key = "clips/c/stage/rows/c/1/0"
    artifact.write_region("rows", 4, np.ones((1, 3), np.float32))
    workspace.files.write(key, workspace.files.read(key)[:length])
    assert artifact_of(workspace).readable_prefix("rows") == 4
    artifact_of(workspace).write_region("rows", 4, np.full((1, 3), 2, np.float32))
    assert artifact_of(workspace).read_region("rows", 4).tolist() == [[2, 2, 2]]


def test_a_damaged_group_above_an_artifact_is_written_again(workspace: Workspace) -> None:
    workspace.files.write("zarr.json", b"{")
    artifact_of(workspace).write_bytes("a", b"")
    assert json.loads(workspace.files.read("zarr.json"))["node_type"] == "group"


def test_a_row_of_zeros_counts_as_written(workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 0)
    artifact.write_region("rows", 0, np.zeros((2, 2, 3), np.float32))
    assert workspace.artifact(artifact.ref()).readable_prefix("rows") == 2


@pytest.mark.parametrize("reopen", [False, True])
def test_zeros_written_through_a_plain_array_count_too(reopen: bool, workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 0)
    (artifact_of(workspace) if reopen else artifact).array("rows")[0] = 0
    assert artifact.readable_prefix("rows") == 1


def test_the_readable_prefix_ends_at_the_first_gap(workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 4)
    workspace.files.delete(["clips/c/stage/rows/c/2/0/0"])
    assert artifact.readable_prefix("rows") == 2


@pytest.mark.parametrize("how", ["flipped", "torn", "empty"])
def test_the_readable_prefix_ends_at_the_first_damaged_chunk(how: str, local: Workspace, damage: Damage) -> None:
    artifact = with_rows(artifact_of(local), 4)
    chunk = Path(local.url, "clips/c/stage/rows/c/1/0/0")
    if how == "flipped":
        damage(chunk)
    else:
        chunk.write_bytes(chunk.read_bytes()[: 5 if how == "torn" else 0])
    assert artifact.readable_prefix("rows") == 1
    with pytest.raises(WorkspaceError, match=r"rows 0 to 4 of .*rows are damaged"):
        artifact.read_region("rows")


def test_a_readable_prefix_is_counted_in_rows_and_the_last_chunk_may_be_short(workspace: Workspace) -> None:
    artifact = artifact_of(workspace)
    artifact.require_array("a", shape=(5, 3), chunks=(2, 2), dtype="int16")
    artifact.write_region("a", 0, np.ones((4, 3), np.int16))
    assert artifact.readable_prefix("a") == 4
    artifact.write_region("a", 4, np.ones((1, 3), np.int16))
    assert artifact.readable_prefix("a") == 5
    assert artifact.complete().digest == "d1"


def sharded(workspace: Workspace, rows: int = 9) -> tuple[Artifact, npt.NDArray[np.uint8]]:
    artifact = artifact_of(workspace)
    artifact.require_array("a", shape=(rows, 2, 3), chunks=(1, 2, 3), dtype="uint8", shard_rows=4)
    return artifact, np.arange(rows * 6, dtype=np.uint8).reshape(rows, 2, 3)


def test_a_shard_is_one_object_written_whole_and_its_rows_are_read_singly(workspace: Workspace) -> None:
    artifact, values = sharded(workspace)
    with pytest.raises(WorkspaceError, match=r"cut a shard of .*4 rows"):
        artifact.write_region("a", 0, values[:3])
    for start in (0, 4, 8):
        artifact.write_region("a", start, values[start : start + 4])
    assert np.array_equal(artifact.read_region("a", 5, 6), values[5:6])
    assert artifact.object_rows("a") == 4
    artifact.complete()
    objects = [key for key in artifact.record()["arrays"]["a"] if key != "zarr.json"]
    assert objects == ["c/0/0/0", "c/1/0/0", "c/2/0/0"]


@pytest.mark.parametrize(("keep_bytes", "reads"), [(0, 4), (1000, 3)])
def test_a_row_reader_reads_whole_objects_and_keeps_as_many_as_fit(
    keep_bytes: int, reads: int, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, values = sharded(workspace)
    artifact.write_region("a", 0, values)
    regions: list[tuple[int, int]] = []
    original = Artifact.read_region

    def read_region(self: Artifact, name: str, start: int, stop: int) -> npt.NDArray[np.uint8]:
        regions.append((start, stop))
        return original(self, name, start, stop)

    monkeypatch.setattr(Artifact, "read_region", read_region)
    reader = artifact.row_reader("a", keep_bytes=keep_bytes)
    for row in (0, 5, 4, 8, 3):
        assert np.array_equal(reader[row], values[row])
    assert regions == [(0, 4), (4, 8), (8, 9), (0, 4)][:reads]
    with pytest.raises(WorkspaceError):
        reader[9]


def test_a_row_writer_writes_objects_once_they_are_whole(workspace: Workspace) -> None:
    artifact, values = sharded(workspace)
    writer = artifact.row_writer("a")
    stored = []
    for row in values:
        writer.append(row)
        stored.append(artifact.readable_prefix("a"))
    assert stored == [0, 0, 0, 4, 4, 4, 4, 8, 8]
    writer.flush()
    assert np.array_equal(artifact.read_region("a"), values)
    assert artifact.readable_prefix("a") == 9


def test_a_row_writer_resumes_at_the_first_row_of_an_object_only(workspace: Workspace) -> None:
    artifact, values = sharded(workspace)
    artifact.write_region("a", 0, values[:4])
    with pytest.raises(WorkspaceError, match="inside an object"):
        artifact.row_writer("a", 3)
    writer = artifact.row_writer("a", 4)
    for row in values[4:6]:
        writer.append(row)
    with pytest.raises(WorkspaceError, match="cut a shard"):
        writer.flush()


def test_an_array_of_other_shards_is_made_anew(workspace: Workspace) -> None:
    artifact, values = sharded(workspace)
    artifact.write_region("a", 0, values)
    artifact.require_array("a", shape=(9, 2, 3), chunks=(1, 2, 3), dtype="uint8")
    assert artifact.readable_prefix("a") == 0


def test_an_array_without_rows_can_be_completed(workspace: Workspace) -> None:
    artifact = artifact_of(workspace)
    artifact.require_array("pairs", shape=(0, 2), chunks=(1, 2), dtype="int32")
    assert workspace.artifact(artifact.complete()).read_region("pairs").shape == (0, 2)


@pytest.mark.parametrize(
    ("start", "shape", "dtype", "reason"),
    [
        (1, (2, 3), "uint8", "cut a chunk"),
        (0, (3, 3), "uint8", "cut a chunk"),
        (4, (2, 3), "uint8", "outside"),
        (-2, (2, 3), "uint8", "outside"),
        (0, (2, 2), "uint8", "rows of .* are"),
        (0, (2, 3), "float32", "stores uint8"),
    ],
)
def test_a_region_that_does_not_fit_is_refused(
    start: int, shape: tuple[int, ...], dtype: str, reason: str, workspace: Workspace
) -> None:
    artifact = artifact_of(workspace)
    artifact.require_array("a", shape=(5, 3), chunks=(2, 3), dtype="uint8")
    with pytest.raises(WorkspaceError, match=reason):
        artifact.write_region("a", start, np.zeros(shape, dtype))


def test_floats_are_rounded_to_the_arrays_precision(workspace: Workspace) -> None:
    artifact = artifact_of(workspace)
    artifact.require_array("flow", shape=(1, 2), chunks=(1, 2), dtype="float16")
    artifact.write_region("flow", 0, np.array([[0.1, 100.03]], np.float32))
    np.testing.assert_array_equal(artifact.read_region("flow"), np.array([[0.1, 100.03]], np.float16))


@pytest.mark.parametrize("length", [3, 6])
def test_resizing_keeps_the_rows_within_the_new_length(length: int, workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 4)
    artifact.resize_array("rows", length)
    assert artifact_of(workspace).readable_prefix("rows") == min(length, 4)
    assert artifact_of(workspace).array("rows").shape[0] == length
    np.testing.assert_array_equal(artifact.read_region("rows", 0, 3)[:, 0, 0], [0, 1, 2])


@pytest.mark.parametrize("name", ["parts", "parts/x", "complete.json", "zarr.json", "a/zarr.json", "../x", "", "/x"])
def test_reserved_names_and_names_outside_the_artifact_are_refused(name: str, workspace: Workspace) -> None:
    artifact = artifact_of(workspace)
    with pytest.raises(WorkspaceError):
        artifact.require_array(name, shape=(1,), chunks=(1,), dtype="uint8")
    with pytest.raises(WorkspaceError):
        artifact.write_bytes(name, b"")


def test_absent_content_is_refused_with_its_name(workspace: Workspace) -> None:
    artifact = artifact_of(workspace)
    artifact.write_bytes("there", b"{")
    for read in (artifact.array, artifact.read_bytes, artifact.read_region):
        with pytest.raises(WorkspaceError, match="absent"):
            read("absent")
    with pytest.raises(WorkspaceError, match="absent"), artifact.local_copy("absent"):
        pass
    with pytest.raises(WorkspaceError, match="is not valid JSON"):
        artifact.read_json("there")


def test_threads_with_their_own_handles_write_at_the_same_time(workspace: Workspace) -> None:
    def write(row: int) -> None:
        artifact = with_rows(artifact_of(workspace), 0, of=24)
        artifact.write_region("rows", row, np.full((1, 2, 3), row, np.float32))
        artifact.complete_part(f"row-{row}", regions={"rows": (row, row + 1)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    artifact = artifact_of(workspace)
    assert len(artifact.completed_parts()) == 24
    np.testing.assert_array_equal(artifact.read_region("rows")[:, 0, 0], np.arange(24))


def test_an_array_is_created_without_removing_what_another_writer_made_meanwhile(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, other = artifact_of(workspace), artifact_of(workspace)
    artifact.write_bytes("first", b"")
    other.write_bytes("second", b"")
    open_array = arrays.open_array

    def open_late(store: Store, path: str) -> zarr.Array[Any]:
        try:
            return open_array(store, path)
        except FileNotFoundError:
            monkeypatch.undo()
            with_rows(artifact_of(workspace), 1)
            raise

    monkeypatch.setattr(arrays, "open_array", open_late)
    with_rows(other, 0)
    assert artifact_of(workspace).readable_prefix("rows") == 1


@pytest.mark.parametrize("row", [np.zeros((3, 2), np.float32), np.zeros((2, 3), np.complex64)])
def test_a_row_that_does_not_fit_is_refused(row: npt.NDArray[Any], workspace: Workspace) -> None:
    writer = with_rows(artifact_of(workspace), 0).row_writer("rows")
    with pytest.raises(WorkspaceError, match="a row of rows must be"):
        writer.append(row)


def test_a_row_reader_never_has_more_than_it_may_keep_while_it_reads(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = with_rows(artifact_of(workspace), 4)
    size = 2 * 3 * 4
    reader, held = artifact.row_reader("rows", keep_bytes=2 * size), []
    read = Artifact.read_region

    def noted(artifact: Artifact, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        held.append(size + sum(each.nbytes for each in reader._objects.values()))
        return read(artifact, name, start, stop)

    monkeypatch.setattr(Artifact, "read_region", noted)
    for row in (0, 1, 0, 2, 0, 3):
        assert reader[row][0, 0] == row
    assert held == [size, 2 * size, 2 * size, 2 * size]
