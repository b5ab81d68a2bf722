"""What of an inventory may be removed, and its removal."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import WorkspaceError
from storage.files import Files
from storage.inventory import Inventory, Keep, Kind, StoredArtifact, collect, plan_collection, take_inventory
from storage.workspace import Workspace
from tests._inventory import EDIT, EDITED, FINISHED, INTERMEDIATE, OTHERS, RESULTS, add, later, paths, quiet, reasons


@pytest.mark.parametrize(
    ("keep", "removed"), [("results", {**INTERMEDIATE, **EDITED}), ("edits", INTERMEDIATE), ("all", {})]
)
def test_what_no_kept_result_needs_is_removed(keep: Keep, removed: dict[str, str], workspace: Workspace) -> None:
    add(workspace, FINISHED | OTHERS)
    collection = plan_collection(quiet(workspace), keep=keep)
    assert paths(collection.removed) == set(removed)
    assert reasons(collection.removed) <= {"no finished result needs it"}
    assert collection.spared == ()
    assert collection.size == sum(workspace.usage(path) for path in removed)


def test_an_unknown_word_for_what_to_keep_is_refused(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="results, edits, all, got 'nothing'"):
        plan_collection(take_inventory(workspace), keep="nothing")  # type: ignore[arg-type]


@pytest.mark.parametrize(("hours", "spared"), [(0.9, True), (1.1, False)])
def test_a_clip_is_spared_for_an_hour_after_anything_of_it_was_written(
    hours: float, spared: bool, workspace: Workspace
) -> None:
    add(workspace, FINISHED)
    inventory = later(take_inventory(workspace), hours=48)
    recent = inventory.taken - timedelta(hours=hours)
    touched = [replace(item, modified=recent) if item.kind == "report" else item for item in inventory.artifacts]
    collection = plan_collection(replace(inventory, artifacts=tuple(touched)), keep="edits")
    assert paths(collection.spared if spared else collection.removed) == set(INTERMEDIATE)
    assert reasons(collection.spared) == ({"its clip was written to recently"} if spared else set())


@pytest.mark.parametrize(("age", "removed"), [({"days": 7}, False), ({"days": 1}, True), ({}, True)])
def test_the_age_that_is_asked_for_counts_instead_of_the_hour(
    age: dict[str, int], removed: bool, workspace: Workspace
) -> None:
    add(workspace, FINISHED)
    inventory = later(take_inventory(workspace), days=3 if age else 0)
    collection = plan_collection(inventory, keep="edits", older_than=timedelta(**age))
    assert paths(collection.removed if removed else collection.spared) == set(INTERMEDIATE)


def test_where_times_are_not_known_a_clip_is_spared_unless_any_age_is_asked_for(workspace: Workspace) -> None:
    add(workspace, FINISHED)
    inventory = quiet(workspace)
    unknown = tuple(replace(item, modified=None) if item.kind == "video" else item for item in inventory.artifacts)
    inventory = replace(inventory, artifacts=unknown)
    for older_than in (None, timedelta(days=1)):
        collection = plan_collection(inventory, keep="edits", older_than=older_than)
        assert reasons(collection.spared) == {"it is not known when its clip was last written to"}
        assert collection.removed == ()
    assert paths(plan_collection(inventory, keep="edits", older_than=timedelta()).removed) == set(INTERMEDIATE)


@pytest.mark.parametrize(
    "change",
    ["no video", "no report", "begun inversion", "begun frames", "another edit without a video", "no edit at all"],
)
def test_a_clip_with_an_unfinished_edit_is_spared_until_an_age_is_asked_for(change: str, workspace: Workspace) -> None:
    kept = {
        "no video": set(FINISHED) - {f"{EDIT}/video"},
        "no report": set(FINISHED) - {f"{EDIT}/report"},
        "no edit at all": set(INTERMEDIATE),
    }.get(change, set(FINISHED))
    add(workspace, kept)
    if change == "begun inversion":
        add(workspace, ["clips/c1/inversion/i2"], complete=False)
    if change == "begun frames":
        add(workspace, ["clips/c1/edits/p2/frames"], complete=False)
    if change == "another edit without a video":
        add(workspace, ["clips/c1/edits/p2/frames"])
    inventory = later(take_inventory(workspace), days=30)
    collection = plan_collection(inventory, keep="edits")
    assert collection.removed == ()
    assert reasons(collection.spared) == {"an edit of its clip is not finished"}
    assert paths(collection.spared) >= set(INTERMEDIATE)
    assert paths(plan_collection(inventory, keep="edits", older_than=timedelta(days=7)).removed) >= set(INTERMEDIATE)


def test_what_was_begun_and_abandoned_is_removed_once_it_has_the_age_that_is_asked_for(workspace: Workspace) -> None:
    begun = {"clips/c1/edits/p2/video", "clips/c1/edits/p2/frames", "evaluations/flow/a-clip/o2", "other/place"}
    add(workspace, FINISHED | OTHERS)
    add(workspace, begun, complete=False)
    inventory = later(take_inventory(workspace), days=30)
    collection = plan_collection(inventory, keep="all", older_than=timedelta(days=7))
    assert paths(collection.removed) == begun - {"other/place"}
    assert reasons(collection.removed) == {"begun and never completed"}
    assert plan_collection(inventory, keep="all").removed == ()


@pytest.mark.parametrize(
    ("in_use", "spared"),
    [
        ({"clips/c1/inversion/i1"}, {"clips/c1/inversion/i1"}),
        ({"clips/c1"}, set(INTERMEDIATE)),
        ({"clips/c1/inversion"}, {"clips/c1/inversion/i1"}),
        ({"clips/c", "clips/c1/inversion/i", "clips/c2"}, set()),
    ],
)
def test_what_a_running_job_uses_is_spared(in_use: set[str], spared: set[str], workspace: Workspace) -> None:
    add(workspace, FINISHED)
    for older_than in (None, timedelta()):
        collection = plan_collection(quiet(workspace), keep="edits", in_use=in_use, older_than=older_than)
        assert paths(collection.spared) == spared
        assert reasons(collection.spared) <= {"a running job uses it"}
        assert paths(collection.removed) == set(INTERMEDIATE) - spared


def test_only_the_chosen_clips_and_sizes_are_removed(workspace: Workspace) -> None:
    add(workspace, FINISHED)
    add(workspace, {path.replace("c1", "c2", 1) for path in FINISHED})
    inventory = quiet(workspace)
    collection = plan_collection(inventory, keep="edits", clips={"c2"})
    assert paths(collection.removed) == {path.replace("c1", "c2", 1) for path in INTERMEDIATE}
    inversion = next(item for item in inventory.artifacts if item.path == "clips/c1/inversion/i1")
    large = replace(inversion, size=1000_000)
    inventory = replace(
        inventory, artifacts=tuple(large if item is inversion else item for item in inventory.artifacts)
    )
    assert paths(plan_collection(inventory, keep="edits", larger_than=1000_000).removed) == {large.path}
    assert paths(plan_collection(inventory, keep="edits", larger_than=1000_001).removed) == set()


KINDS: dict[str, Kind] = {
    "source": "source",
    "inversion/i": "inversion",
    "keyframes/e": "keyframes",
    "edits/p/frames": "frames",
    "edits/p/video": "video",
    "edits/p/report": "report",
    "edits/q/video": "video",
}
TAKEN = datetime(2025, 1, 2, tzinfo=UTC)


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    chosen = draw(st.sets(st.tuples(st.sampled_from(["c1", "c2"]), st.sampled_from(sorted(KINDS)))))
    artifacts = [
        StoredArtifact(
            path=f"clips/{clip}/{name}",
            kind=next(
                kind for kind in ("source", "inversion", "keyframes", "frames", "video", "report") if kind in name
            ),
            folder=f"clips/{clip}",
            digest="d",
            complete=draw(st.booleans()),
            size=draw(st.integers(0, 100)),
            modified=draw(st.none() | st.just(TAKEN - timedelta(hours=draw(st.integers(0, 100))))),
        )
        for clip, name in sorted(chosen)
    ]
    return Inventory(artifacts=tuple(artifacts), other_size=0, taken=TAKEN)


@given(
    inventory=inventories(),
    keep=st.sampled_from(["results", "edits", "all"]),
    older_than=st.none() | st.integers(0, 100).map(lambda hours: timedelta(hours=hours)),
    in_use=st.sets(st.sampled_from([f"clips/{clip}/{name}" for clip in ("c1", "c2") for name in KINDS])),
)
def test_no_collection_removes_a_complete_result_or_anything_young_or_in_use(
    inventory: Inventory, keep: Keep, older_than: timedelta | None, in_use: set[str]
) -> None:
    collection = plan_collection(inventory, keep=keep, older_than=older_than, in_use=in_use)
    age = timedelta(hours=1) if older_than is None else older_than
    for choice in collection.removed:
        artifact = choice.artifact
        assert not (artifact.complete and artifact.kind in ("video", "report"))
        assert not (artifact.complete and keep == "all")
        assert artifact.path not in in_use
        for other in inventory.artifacts:
            if other.folder == artifact.folder and age:
                assert other.modified is not None
                assert other.modified <= inventory.taken - age
    assert not paths(collection.removed) & paths(collection.spared)


# --- removal ------------------------------------------------------------------------------------------------------


def complete_paths(workspace: Workspace) -> set[str]:
    return {item.path for item in take_inventory(workspace).artifacts if item.complete}


def test_a_collection_removes_exactly_what_was_planned(workspace: Workspace) -> None:
    add(workspace, FINISHED | OTHERS)
    before, planned = workspace.usage(), plan_collection(quiet(workspace), keep="results")
    assert collect(workspace, planned) == planned
    assert complete_paths(workspace) == set(RESULTS | OTHERS)
    assert {item.path for item in take_inventory(workspace).artifacts} == set(RESULTS | OTHERS)
    assert before - workspace.usage() == planned.size
    assert plan_collection(quiet(workspace), keep="results").removed == ()


def test_a_dry_run_removes_nothing(workspace: Workspace) -> None:
    add(workspace, FINISHED)
    before, planned = dict(workspace.files.sizes()), plan_collection(quiet(workspace), keep="results")
    assert collect(workspace, planned, dry_run=True) == planned
    assert dict(workspace.files.sizes()) == before


def test_a_clip_that_was_written_to_since_the_inventory_is_spared_whole(workspace: Workspace) -> None:
    add(workspace, FINISHED)
    add(workspace, {path.replace("c1", "c2", 1) for path in FINISHED})
    planned = plan_collection(quiet(workspace), keep="edits")
    add(workspace, ["clips/c1/keyframes/e2"], complete=False)
    collection = collect(workspace, planned)
    assert paths(collection.spared) == set(INTERMEDIATE)
    assert reasons(collection.spared) == {"its clip was written to meanwhile"}
    assert paths(collection.removed) == {path.replace("c1", "c2", 1) for path in INTERMEDIATE}
    assert complete_paths(workspace) == set(FINISHED) | {path.replace("c1", "c2", 1) for path in EDITED | RESULTS}


class KilledError(Exception):
    """Raised where a process dies."""


class FragileFiles:
    """Files of a process that dies after some removals."""

    def __init__(self, files: Files, removals: int) -> None:
        self._files, self._left = files, removals

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._left -= 1
            if self._left < 0:
                raise KilledError
            self._files.delete([key])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)


def test_wherever_a_collection_is_killed_an_artifact_is_whole_or_does_not_count_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    for removals in itertools.count():
        workspace = Workspace.open(tmp_path / str(removals))
        add(workspace, ["clips/c1/inversion/i1", f"{EDIT}/frames", *RESULTS])
        sizes = {path: workspace.usage(path) for path in (f"{EDIT}/frames", "clips/c1/inversion/i1")}
        fragile = replace(workspace, files=FragileFiles(workspace.files, removals))
        try:
            collect(fragile, plan_collection(quiet(workspace), keep="results"))
        except KilledError:
            for path, size in sizes.items():
                assert workspace.artifact(path).is_complete() == (workspace.usage(path) == size)
            assert complete_paths(workspace) >= set(RESULTS)
            remains = plan_collection(quiet(workspace), keep="results", older_than=timedelta(hours=1))
            collect(workspace, remains)
            assert {item.path for item in take_inventory(workspace).artifacts} == set(RESULTS)
        else:
            assert removals > 10
            return
