"""Copies of results outside the workspace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tasks.errors import TaskInputError

if TYPE_CHECKING:
    from storage.reference import ArtifactRef
    from tasks.planning.plan import EditPlan

__all__ = ["check_output", "copy_out", "deliver", "report_notes"]


def check_output(location: str | None, *, video: str) -> None:
    """Check, before anything runs, that the result can be written to a path, or to the URL of an object store.

    Raises:
        TaskInputError: if not.
    """
    if location is None:
        return
    if "://" in location and not location.startswith("file://"):
        _check_remote(location)
        return
    output = local_path(location)
    if output.suffix.lower() != ".mp4":
        raise TaskInputError(f"The output {output} must end in .mp4 (--output).")
    if output.is_dir():
        raise TaskInputError(f"The output {output} is a folder; give a file name (--output).")
    source = Path(video)
    if output.exists() and source.exists() and output.samefile(source):
        raise TaskInputError(f"The output {output} is the source clip itself; give another name (--output).")
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise TaskInputError(f"The output {output} cannot be written: {folder} is not a writable folder (--output).")


def local_path(location: str) -> Path:
    """Return the path that a location names, a path or a file:// URL."""
    return Path(unquote(urlsplit(location).path) if location.startswith("file://") else location).expanduser()


def _check_remote(location: str) -> None:
    from storage.objects import SCHEMES
    from storage.secrets import has_password, without_secrets

    if has_password(location):
        shown = without_secrets(location)
        raise TaskInputError(f"The output {shown} contains a password: set credentials in the environment (--output).")
    scheme, _, rest = location.partition("://")
    if scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise TaskInputError(f"The output {location} cannot be written: --output takes a path, or {known}.")
    if not location.lower().endswith(".mp4") or "/" not in rest:
        raise TaskInputError(f"The output {location} must be a bucket and a name that ends in .mp4.")


def deliver(plan: EditPlan, output: str | None) -> str:
    """Copy the edited clip to the output, if one is given, and return where it is."""
    from tasks.artifacts import EDITED
    from tasks.planning.stages import ENCODE

    ref = plan[ENCODE].ref
    if output is None:
        return f"{ref.workspace}/{ref.path}/{EDITED}"
    if "://" in output and not output.startswith("file://"):
        from tasks.delivery import deliver_video

        deliver_video(ref, output)
    else:
        copy_out(ref, EDITED, local_path(output))
    return output


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
