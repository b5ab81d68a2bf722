"""Copies of results outside the workspace."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from storage.files import atomic_path
from storage.workspace import open_artifact
from tasks.artifacts import REPORT, edited_name
from tasks.errors import TaskInputError
from tasks.planning.stages import ASSESS, ENCODE

if TYPE_CHECKING:
    from storage.reference import ArtifactRef
    from tasks.planning.plan import EditPlan

__all__ = ["check_output", "copy_out", "deliver", "report_notes"]


def check_output(output: str | None, *, video: str) -> None:
    """Check, before anything runs, that the result can be written to the output.

    Raises:
        TaskInputError: if not.
    """
    if output is None:
        return
    target, source = Path(output), Path(video)
    if target.exists() and source.exists() and target.samefile(source):
        raise TaskInputError(f"The output {output} is the source clip itself; give another name.")
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise TaskInputError(f"The output {output} cannot be written: {folder} is not a writable folder.")


def deliver(plan: EditPlan, output: str | None) -> str:
    """Copy the edited clip to the output, if one is given, and return where it is."""
    ref = plan[ENCODE].ref
    name = edited_name(open_artifact(ref))
    if output is None:
        return f"{ref.workspace}/{ref.path}/{name}"
    if name.endswith(".zip") and not output.endswith(".zip"):
        _unpack_out(ref, name, Path(output))
    else:
        copy_out(ref, name, Path(output))
    return output


def report_notes(plan: EditPlan) -> list[str]:
    """Return what the finished edit lost or changed of its clip, a sentence each; none where nothing was lost."""
    artifact = open_artifact(plan[ASSESS].ref)
    return list(artifact.read_json(REPORT).get("notes", []))


def copy_out(ref: ArtifactRef, name: str, target: Path) -> None:
    """Copy a file of an artifact to a local path, whole or not at all.

    Raises:
        TaskInputError: if the path cannot be written; the artifact keeps the file.
    """
    with open_artifact(ref).local_copy(name) as path, _writing(ref, name, target), atomic_path(target) as partial:
        shutil.copyfile(path, partial)


def _unpack_out(ref: ArtifactRef, name: str, target: Path) -> None:
    """Unpack a zip of an artifact to a local folder, whole or not at all; an older folder is replaced."""
    target = target.absolute()
    with open_artifact(ref).local_copy(name) as path, _writing(ref, name, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            with zipfile.ZipFile(path) as pictures:
                pictures.extractall(Path(folder, "new"))
            if target.exists():
                target.rename(Path(folder, "old"))
            Path(folder, "new").rename(target)


@contextmanager
def _writing(ref: ArtifactRef, name: str, target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kept = f"{ref.workspace}/{ref.path}/{name}"
        raise TaskInputError(f"{target} cannot be written ({error.strerror}); the result is in {kept}") from error
