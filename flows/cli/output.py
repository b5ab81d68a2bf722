"""Copies of results outside the workspace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import TaskInputError

if TYPE_CHECKING:
    from storage.reference import ArtifactRef
    from tasks.planning.plan import EditPlan

__all__ = ["check_output", "copy_out", "deliver", "report_notes"]


def check_output(output: Path | None, *, video: str) -> None:
    """Check, before anything runs, that the result can be written to the output.

    Raises:
        TaskInputError: if not.
    """
    if output is None:
        return
    if output.suffix.lower() != ".mp4":
        raise TaskInputError(f"The output {output} must end in .mp4.")
    if output.is_dir():
        raise TaskInputError(f"The output {output} is a folder; give a file name.")
    source = Path(video)
    if output.exists() and source.exists() and output.samefile(source):
        raise TaskInputError(f"The output {output} is the source clip itself; give another name.")
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise TaskInputError(f"The output {output} cannot be written: {folder} is not a writable folder.")


def deliver(plan: EditPlan, output: Path | None) -> str:
    """Copy the edited clip to the output, if one is given, and return where it is."""
    from tasks.artifacts import EDITED
    from tasks.planning.stages import ENCODE

    ref = plan[ENCODE].ref
    if output is None:
        return f"{ref.workspace}/{ref.path}/{EDITED}"
    copy_out(ref, EDITED, output)
    return str(output)


def report_notes(plan: EditPlan) -> list[str]:
    """Return what the finished edit lost or changed of its clip, a sentence each; none where nothing was lost."""
    from storage.workspace import open_artifact
    from tasks.artifacts import REPORT
    from tasks.planning.stages import ASSESS

    artifact = open_artifact(plan[ASSESS].ref)
    return list(artifact.read_json(REPORT).get("notes", []))


def copy_out(ref: ArtifactRef, name: str, target: Path) -> None:
    """Copy a file of an artifact to a local path, whole or not at all.

    Raises:
        TaskInputError: if the path cannot be written; the artifact keeps the file.
    """
    from storage.files import atomic_path
    from storage.workspace import open_artifact

    artifact = open_artifact(ref)
    with artifact.local_copy(name) as path:
        try:
            with atomic_path(target) as partial:
                shutil.copyfile(path, partial)
        except OSError as error:
            kept = f"{ref.workspace}/{ref.path}/{name}"
            raise TaskInputError(f"{target} cannot be written ({error.strerror}); the result is in {kept}") from error
