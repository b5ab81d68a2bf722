"""Copies of results outside the workspace."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from storage.digest import digest_file, digest_folder, to_json
from storage.files import atomic_path, write_atomic
from storage.video import PICTURE_TIMES
from storage.workspace import open_artifact
from tasks.artifacts import REPORT, edited_name
from tasks.errors import TaskInputError
from tasks.planning.stages import ASSESS, ENCODE
from tasks.provenance import provenance

if TYPE_CHECKING:
    from storage.reference import ArtifactRef
    from tasks.planning.plan import EditPlan

__all__ = ["check_output", "check_overwrite", "copy_out", "deliver", "report_notes"]


def check_output(output: str | None, *, video: str, overwrite: bool) -> None:
    """Check, before anything is planned, that the result can be written to the output.

    Raises:
        TaskInputError: if not.
    """
    if output is None:
        return
    target, source = Path(output), Path(video)
    places = (source, source.parent) if target.is_dir() else (source,)  # a glob of pictures has its parent
    if target.exists() and any(place.exists() and target.samefile(place) for place in places):
        raise TaskInputError(f"The output {output} is the source clip itself, or its folder; give another name.")
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise TaskInputError(f"The output {output} cannot be written: {folder} is not a writable folder.")
    if target.is_dir() and not all(_is_picture(path) for path in target.iterdir()):
        raise TaskInputError(
            f"The output {output} has other files than pictures, which would be lost: name a new folder."
        )
    if _is_kept(target) and not overwrite and _made_by(target) is None:
        raise TaskInputError(
            f"The output {output} exists, and no edit is known to have made it; --overwrite replaces it."
        )


def check_overwrite(plan: EditPlan, output: str | None, *, overwrite: bool) -> None:
    """Check, before anything is computed, that an existing output was made by this very edit, or may be replaced.

    Raises:
        TaskInputError: if not.
    """
    if output is None or overwrite or not _is_kept(Path(output)):
        return
    if _made_by(Path(output)) != plan[ENCODE].ref.digest:
        raise TaskInputError(f"The output {output} exists, and another edit has made it; --overwrite replaces it.")


def _is_picture(path: Path) -> bool:
    """Return whether a file is one of those that a folder of pictures has."""
    return path.is_file() and (path.suffix == ".png" or path.name == PICTURE_TIMES)


def _is_kept(target: Path) -> bool:
    """Return whether there is something at an output that would be lost: an empty folder is not."""
    return target.exists() and not (target.is_dir() and not any(target.iterdir()))


def _made_by(target: Path) -> str | None:
    """Return the digest of the edit that made an output, from the record next to it; None if it has changed since."""
    try:
        record = json.loads(_sidecar(target).read_text(encoding="utf-8"))
        return str(record["edit"]) if record["output"]["digest"] == _digest(target) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sidecar(target: Path) -> Path:
    return target.with_name(f"{target.name}.provenance.json")


def _digest(target: Path) -> str:
    return digest_folder(target) if target.is_dir() else digest_file(target)


def deliver(plan: EditPlan, output: str | None) -> str:
    """Copy the edited clip to the output, if one is given, with its provenance next to it; return where it is."""
    ref = plan[ENCODE].ref
    name = edited_name(open_artifact(ref))
    if output is None:
        return f"{ref.workspace}/{ref.path}/{name}"
    target = Path(output)
    with open_artifact(ref).local_copy(name) as path, _writing(ref, name, target), _replacing(target) as partial:
        if name.endswith(".zip") and not output.endswith(".zip"):
            with zipfile.ZipFile(path) as pictures:
                pictures.extractall(partial)
        else:
            shutil.copyfile(path, partial)
        # First, so that an output without its provenance is never there; the digest says which output it belongs to
        record = to_json(provenance(plan) | {"output": {"name": target.name, "digest": _digest(partial)}})
        write_atomic(_sidecar(target), f"{json.dumps(record, indent=2, ensure_ascii=False)}\n".encode())
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


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or a folder, which replaces the target if the context ends without an error."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        new = Path(folder, target.name)
        yield new
        if target.is_dir():
            target.rename(Path(folder, "old"))
        new.replace(target)


@contextmanager
def _writing(ref: ArtifactRef, name: str, target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kept = f"{ref.workspace}/{ref.path}/{name}"
        raise TaskInputError(f"{target} cannot be written ({error.strerror}); the result is in {kept}") from error
