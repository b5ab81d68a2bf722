from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from zarr.storage import LoggingStore

from storage.artifact import Artifact
from storage.errors import WorkspaceError
from storage.workspace import Workspace
from tests._artifacts import CountingFiles, artifact_of, with_rows


def counted(workspace: Workspace, use: Callable[[Artifact], object], *, parts: int) -> Counter[str]:
    """Count what one use costs of an artifact with this many finished parts of one row each, and one more row."""
    path = f"clips/c/{parts}"
    artifact = with_rows(artifact_of(workspace, path=path), parts + 1, of=parts + 1)
    for row in range(parts):
        artifact.complete_part(f"{row:03}", {"row": row}, regions={"rows": (row, row + 1)})
    files, store = CountingFiles(workspace.files), LoggingStore(workspace.store, log_level="ERROR")
    use(artifact_of(replace(workspace, files=files, store=store), path=path))
    files.counts["listings"] += sum(store.counter[method] for method in ("list", "list_dir", "list_prefix"))
    return files.counts


def test_finished_parts_are_found_with_their_metadata(workspace: Workspace) -> None:
    artifact = artifact_of(workspace)
    artifact.complete_part("000-004", {"seconds": 2})
    artifact.complete_part("004-008.v1")
    again = artifact_of(workspace)
    assert again.completed_parts() == {"000-004", "004-008.v1"}
    assert again.parts_metadata(["000-004"])["000-004"] == {"seconds": 2}
    assert [again.has_part(name) for name in ("000-004", "004-008.v1", "008-012")] == [True, True, False]


def test_the_metadata_of_parts_come_in_the_given_order(workspace: Workspace) -> None:
    artifact = artifact_of(workspace)
    for name in ("a", "b", "c"):
        artifact.complete_part(name, {"name": name})
    assert list(artifact.parts_metadata(["c", "a"]).items()) == [("c", {"name": "c"}), ("a", {"name": "a"})]
    assert artifact.parts_metadata([]) == {}


def test_the_first_missing_part_is_named(workspace: Workspace) -> None:
    artifact = artifact_of(workspace)
    artifact.complete_part("b")
    with pytest.raises(WorkspaceError, match="no finished part a"):
        artifact.parts_metadata(["a"])
    with pytest.raises(WorkspaceError, match="no finished part c"):
        artifact.parts_metadata(["b", "c", "a"])


def test_a_part_of_another_digest_does_not_count(workspace: Workspace) -> None:
    artifact_of(workspace, "old").complete_part("first")
    new = artifact_of(workspace, "new")
    assert not new.has_part("first")
    assert new.completed_parts() == set()
    with pytest.raises(WorkspaceError, match="no finished part first"):
        new.parts_metadata(["first"])
    assert workspace.artifact(new.path).has_part("first")


@pytest.mark.parametrize("damage", ["removed", "cut short"])
def test_a_part_counts_only_while_its_chunks_are_as_it_wrote_them(damage: str, workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 3)
    artifact.complete_part("first", regions={"rows": (0, 2)})
    artifact.complete_part("second", regions={"rows": (2, 3)})
    chunk = "clips/c/stage/rows/c/1/0/0"
    if damage == "removed":
        workspace.files.delete([chunk])
    else:
        workspace.files.write(chunk, workspace.files.read(chunk)[:-1])
    assert artifact.completed_parts() == {"second"}
    assert [artifact.has_part(name) for name in ("first", "second")] == [False, True]


def test_a_part_with_unwritten_chunks_is_refused(workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 3)
    with pytest.raises(WorkspaceError, match="not all written"):
        artifact.complete_part("last", regions={"rows": (2, 4)})
    assert artifact.completed_parts() == set()


def test_the_record_of_a_part_lists_its_own_chunks_with_their_sizes(workspace: Workspace) -> None:
    artifact = with_rows(artifact_of(workspace), 4)
    artifact.complete_part("middle", regions={"rows": (1, 3)})
    record = json.loads(workspace.files.read("clips/c/stage/parts/middle.json"))
    sizes = workspace.files.sizes("clips/c/stage")
    assert record["chunks"] == {key: sizes[key] for key in ("rows/c/1/0/0", "rows/c/2/0/0")}


@pytest.mark.parametrize(
    "use",
    [
        lambda artifact: artifact.has_part("001"),
        lambda artifact: artifact.has_part("absent"),
        lambda artifact: artifact.parts_metadata(["001"]),
        lambda artifact: artifact.complete_part("last", regions={"rows": (1, 2)}),
    ],
)
def test_one_part_costs_no_listing_and_the_same_among_any_number(
    use: Callable[[Artifact], object], workspace: Workspace
) -> None:
    few, many = (counted(workspace, use, parts=parts) for parts in (2, 20))
    assert few["listings"] == 0
    assert few == many
    assert few["reads"] > 0


def test_the_metadata_of_many_parts_are_one_batch_of_reads(workspace: Workspace) -> None:
    names = [f"{row:03}" for row in range(20)]
    cost = counted(workspace, lambda artifact: artifact.parts_metadata(names), parts=20)
    assert +cost == Counter(batches=1, reads=20)


def test_an_artifact_without_a_record_is_found_incomplete_by_one_read(workspace: Workspace) -> None:
    assert +counted(workspace, lambda artifact: artifact.is_complete(), parts=3) == Counter(batches=1, reads=1)
