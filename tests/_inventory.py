"""A workspace with a clip that is edited, at the paths of the pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from storage.inventory import Choice, Inventory, take_inventory
from storage.workspace import Workspace
from tests._artifacts import artifact_of, with_rows

__all__ = [
    "EDIT",
    "EDITED",
    "FINISHED",
    "INTERMEDIATE",
    "OTHERS",
    "RESULTS",
    "add",
    "later",
    "paths",
    "quiet",
    "reasons",
]

EDIT = "clips/c1/edits/p1"
INTERMEDIATE = {
    "clips/c1/source": "source",
    "clips/c1/keyframe_flow/k1": "keyframe_flow",
    "clips/c1/frame_flow/f1": "frame_flow",
    "clips/c1/inversion/i1": "inversion",
}
EDITED = {"clips/c1/keyframes/e1": "keyframes", f"{EDIT}/frames": "frames"}
RESULTS = {f"{EDIT}/video": "video", f"{EDIT}/report": "report"}
OTHERS = {"evaluations/flow/a-clip/o1": "evaluation", "somewhere/else": "other"}
FINISHED = INTERMEDIATE | EDITED | RESULTS


def add(workspace: Workspace, paths: Iterable[str], *, complete: bool = True) -> None:
    for path in paths:
        artifact = with_rows(artifact_of(workspace, f"digest-{path.rpartition('/')[2]}", path=path), 4)
        artifact.write_bytes("file.bin", b"12345")
        if complete:
            artifact.complete()


def later(inventory: Inventory, **ago: float) -> Inventory:
    """Return the inventory as if it had been taken after some time in which nothing was written."""
    return replace(inventory, taken=inventory.taken + timedelta(**ago))


def quiet(workspace: Workspace) -> Inventory:
    return later(take_inventory(workspace), hours=2)


def paths(choices: Iterable[Choice]) -> set[str]:
    return {choice.artifact.path for choice in choices}


def reasons(choices: Iterable[Choice]) -> set[str]:
    return {choice.reason for choice in choices}
