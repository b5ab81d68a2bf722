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

from tasks.errors import TaskInputError
from tasks.planning.local_path import is_local, local_path
from tasks.sidecar import SIDECAR, sidecar_record

if TYPE_CHECKING:
    from storage.reference import ArtifactRef
    from tasks.planning.plan import EditPlan

__all__ = ["check_output", "check_overwrite", "copy_out", "deliver", "report_notes"]

_LONGEST_NAME = 255  # bytes, in all usual file systems


def check_output(location: str | None, *, video: str, overwrite: bool) -> None:
    """Check, before anything is planned, that the result can be written to a path, or to the URL of an object store.

    Raises:
        TaskInputError: if not.
    """
    if location is None:
        return
    if not is_local(location):
        _check_remote(location)
        return
    target, source = local_path(location), Path(video)
    _check_name(target)
    places = (source, source.parent) if target.is_dir() else (source,)  # a glob of pictures has its parent
    if target.exists() and any(place.exists() and target.samefile(place) for place in places):
        raise TaskInputError(
            f"The output {target} is the source clip itself, or its folder; give another name (--output)."
        )
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise TaskInputError(f"The output {target} cannot be written: {folder} is not a writable folder (--output).")
    if target.is_dir() and not all(_is_picture(path) for path in target.iterdir()):
        raise TaskInputError(
            f"The output {target} has other files than pictures, which would be lost: name a new folder (--output)."
        )
    if _is_kept(target) and not overwrite and _made_by(target) is None:
        raise TaskInputError(
            f"The output {target} exists, and no edit is known to have made it; --overwrite replaces it."
        )


def check_overwrite(plan: EditPlan, output: str | None, *, overwrite: bool) -> None:
    """Check, before anything is computed, that an existing output was made by this very edit, or may be replaced.

    Raises:
        TaskInputError: if not.
    """
    from tasks.planning.stages import ENCODE

    if output is None or overwrite:
        return
    if not is_local(output):
        maker = _made_by_remote(output)
    elif _is_kept(local_path(output)):
        maker = _made_by(local_path(output))
    else:
        return
    if maker not in (None, plan[ENCODE].ref.digest):
        raise TaskInputError(f"The output {output} exists, and another edit has made it; --overwrite replaces it.")


def _check_name(target: Path) -> None:
    """Refuse a path that no file can have; the record next to an output has a longer name."""
    *folders, name = target.absolute().parts
    if max(len(os.fsencode(part)) for part in (*folders, f"{name}{SIDECAR}")) > _LONGEST_NAME:
        most = _LONGEST_NAME - len(SIDECAR)
        raise TaskInputError(f"The output {target} cannot be written: a name has at most {most} bytes (--output).")
    try:
        os.lstat(target)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise TaskInputError(f"The output {target} cannot be written: {error.strerror} (--output).") from error


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
    if "/" not in rest or location.endswith("/"):
        raise TaskInputError(f"The output {location} must be a bucket and the name of a file (--output).")


def _is_picture(path: Path) -> bool:
    """Return whether a file is one of those that a folder of pictures has."""
    from storage.video import PICTURE_TIMES

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


def _made_by_remote(location: str) -> str | None:
    """Return the digest of the edit that made an object, from the record next to it; None if there is no object.

    Raises:
        TaskInputError: if there is an object that no edit is known to have made.
    """
    from storage.errors import StorageError
    from tasks.delivery import files_of

    files, key = files_of(location)
    if key not in files.sizes_of([key]):
        return None
    try:
        return str(json.loads(files.read(f"{key}{SIDECAR}"))["edit"])
    except (OSError, StorageError, ValueError, KeyError, TypeError):
        raise TaskInputError(
            f"The output {location} exists, and no edit is known to have made it; --overwrite replaces it."
        ) from None


def _sidecar(target: Path) -> Path:
    return target.with_name(f"{target.name}{SIDECAR}")


def _digest(target: Path) -> str:
    from storage.digest import digest_file, digest_folder

    return digest_folder(target) if target.is_dir() else digest_file(target)


def deliver(plan: EditPlan, output: str | None) -> str:
    """Copy the edited clip to the output, if one is given, with its provenance next to it; return where it is."""
    from storage.workspace import open_artifact
    from tasks.artifacts import edited_name
    from tasks.planning.stages import ENCODE

    ref = plan[ENCODE].ref
    name = edited_name(open_artifact(ref))
    if output is None:
        return f"{ref.workspace}/{ref.path}/{name}"
    # First, so that an output without its provenance is never there; the digest says which output it belongs to
    if not is_local(output):
        from tasks.delivery import deliver_video

        deliver_video(ref, output, record=lambda made: sidecar_record(plan, output=made))
        return output
    from storage.files import write_atomic

    target = local_path(output)
    with open_artifact(ref).local_copy(name) as path, _writing(ref, name, target), _replacing(target) as partial:
        if name.endswith(".zip") and not output.endswith(".zip"):
            with zipfile.ZipFile(path) as pictures:
                pictures.extractall(partial)
        else:
            shutil.copyfile(path, partial)
        made = {"name": target.name, "digest": _digest(partial)}
        write_atomic(_sidecar(target), sidecar_record(plan, output=made))
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

    with open_artifact(ref).local_copy(name) as path, _writing(ref, name, target), atomic_path(target) as partial:
        shutil.copyfile(path, partial)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or a folder, which replaces the target if the context ends without an error."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wave-", dir=target.parent) as folder:
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
