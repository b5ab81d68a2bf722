from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from storage.inventory import plan_collection, take_inventory
from storage.workspace import Workspace
from tests._artifacts import CountingFiles, artifact_of
from tests._inventory import EDIT, FINISHED, INTERMEDIATE, OTHERS, add


def test_the_inventory_has_every_artifact_with_its_kind_clip_digest_size_and_time(workspace: Workspace) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    add(workspace, FINISHED | OTHERS)
    add(workspace, [f"{EDIT}/video_full", f"{EDIT}/video-0a1b2c", f"{EDIT}/report_full-0a1b2c"])
    found = {artifact.path: artifact for artifact in take_inventory(workspace).artifacts}
    others = {"video_full": "video", "video-0a1b2c": "video", "report_full-0a1b2c": "report"}
    expected = FINISHED | OTHERS | {f"{EDIT}/{name}": kind for name, kind in others.items()}
    assert {path: artifact.kind for path, artifact in found.items()} == expected
    assert list(found) == sorted(found)
    for path, artifact in found.items():
        assert artifact.complete
        assert artifact.digest == f"digest-{path.rpartition('/')[2]}"
        assert artifact.size == workspace.usage(path)
        assert artifact.modified is not None
        assert before < artifact.modified < datetime.now(UTC) + timedelta(seconds=1)
    assert {found[path].clip for path in FINISHED} == {"c1"}
    assert (found["evaluations/flow/a-clip/o1"].clip, found["evaluations/flow/a-clip/o1"].folder) == (
        "a-clip",
        "evaluations/flow/a-clip",
    )


def test_the_bytes_of_the_inventory_are_those_of_the_workspace(workspace: Workspace) -> None:
    add(workspace, FINISHED | OTHERS)
    workspace.files.write("tables/runs/r.parquet", b"1234")
    workspace.files.write("clips/c1/source/.partial-0123456789ab-x", b"half")
    inventory = take_inventory(workspace)
    assert inventory.other_size > 4
    assert sum(artifact.size for artifact in inventory.artifacts) + inventory.other_size == workspace.usage()


def test_an_artifact_that_was_begun_has_the_digest_of_its_group(workspace: Workspace) -> None:
    add(workspace, INTERMEDIATE, complete=False)
    found = take_inventory(workspace).artifacts
    assert {artifact.path for artifact in found} == set(INTERMEDIATE)
    assert {artifact.complete for artifact in found} == {False}
    assert {artifact.digest for artifact in found} == {"digest-source", "digest-k1", "digest-f1", "digest-i1"}


def test_one_that_lost_a_file_or_whose_record_is_damaged_is_not_complete(workspace: Workspace) -> None:
    add(workspace, INTERMEDIATE)
    workspace.files.delete(["clips/c1/source/rows/c/2/0/0"])
    workspace.files.write("clips/c1/inversion/i1/complete.json", b"{")
    workspace.files.write("clips/c1/frame_flow/f1/file.bin", b"123456")
    for artifact in take_inventory(workspace).artifacts:
        assert artifact.complete == workspace.artifact(artifact.path).is_complete() == ("keyframe" in artifact.path)


def test_an_inventory_takes_one_listing_and_reads_only_records_and_groups_of_what_was_begun(
    workspace: Workspace,
) -> None:
    for clip in range(12):
        add(workspace, [f"clips/c{clip}/source", f"clips/c{clip}/inversion/i"])
    add(workspace, ["clips/begun/source"], complete=False)
    files = CountingFiles(workspace.files)
    assert len(take_inventory(replace(workspace, files=files)).artifacts) == 25
    assert files.counts["listings"] == 1
    assert files.counts["batches"] == 2
    assert files.counts["reads"] == 2 * 12 + 3  # the clip's folder, the artifact and its array


def test_records_are_read_in_batches(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.inventory._BATCH", 3)
    add(workspace, FINISHED)
    files = CountingFiles(workspace.files)
    found = take_inventory(replace(workspace, files=files)).artifacts
    assert [artifact.digest for artifact in found if artifact.complete] == [artifact.digest for artifact in found]
    assert len(found) == 8
    assert files.counts["batches"] == 1 + 3


def test_files_inside_an_artifact_are_no_artifacts_whatever_their_names(workspace: Workspace) -> None:
    artifact = artifact_of(workspace, path="clips/c1/source")
    artifact.write_bytes("inner/complete.json", b"{}")
    artifact.complete()
    assert [artifact.path for artifact in take_inventory(workspace).artifacts] == ["clips/c1/source"]


def test_the_inventory_of_a_folder_is_that_part_of_the_whole(workspace: Workspace) -> None:
    add(workspace, FINISHED | OTHERS)
    add(workspace, ["clips/c10/source"])
    whole = take_inventory(workspace).artifacts
    assert take_inventory(workspace, folder="clips/c1").artifacts == tuple(
        artifact for artifact in whole if artifact.folder == "clips/c1"
    )


def test_an_absent_workspace_has_an_empty_inventory(workspace: Workspace) -> None:
    inventory = take_inventory(workspace)
    assert (inventory.artifacts, inventory.other_size) == ((), 0)
    assert plan_collection(inventory, keep="results").removed == ()
