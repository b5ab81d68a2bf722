"""Results of a data set outside the workspace: the videos, and a table that names them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd

from storage.files import atomic_path, write_atomic
from storage.reference import ArtifactRef
from storage.workspace import open_artifact
from tasks.artifacts import EDITED
from tasks.errors import TaskInputError

__all__ = ["deliver_video", "is_delivered", "output_location", "write_metadata", "write_webdataset"]

SUFFIX = ".mp4"
_SHARD_BYTES = 2**30


def output_location(output: str, path: str) -> str:
    """Return the path or URL of a row's video below the output folder."""
    return f"{output.rstrip('/')}/{path}{SUFFIX}"


def is_delivered(video: ArtifactRef, location: str) -> bool:
    """Return whether the location has a file of the edited clip's size."""
    size: int = open_artifact(video).record()["files"][EDITED]
    return _size(location) == size


def deliver_video(video: ArtifactRef, location: str) -> None:
    """Copy an edited clip to a path or URL, whole or not at all.

    Raises:
        TaskInputError: if it cannot be written there; the workspace keeps the clip.
        WorkspaceError: if the artifact has no such file.
    """
    with open_artifact(video).local_copy(EDITED) as path:
        try:
            if "://" in location:
                filesystem, remote = fsspec.core.url_to_fs(location)
                filesystem.put_file(str(path), remote)
            else:
                with atomic_path(Path(location).expanduser()) as partial:
                    shutil.copyfile(path, partial)
        except (OSError, ValueError, ImportError) as error:
            raise TaskInputError(f"{location} cannot be written: {error}.") from error


def write_metadata(output: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write metadata.parquet and metadata.csv, with the column `file_name` that a Hugging Face VideoFolder reads.

    Args:
        output: the output folder.
        rows: one for each video, with its path below the output folder as `file_name`.
    """
    frame = pd.DataFrame(list(rows))
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    _write(f"{output.rstrip('/')}/metadata.parquet", buffer.getvalue())
    _write(f"{output.rstrip('/')}/metadata.csv", frame.to_csv(index=False).encode())


def write_webdataset(output: str, samples: Sequence[tuple[str, ArtifactRef, Mapping[str, Any]]]) -> list[str]:
    """Write tar files of about a gigabyte for WebDataset: of each sample an .mp4 and a .json with the same stem.

    Args:
        output: a local output folder.
        samples: stem, artifact of the edited clip, and values for the .json.

    Returns:
        The names of the tar files. Those of an earlier run that are no longer needed are removed.

    Raises:
        TaskInputError: if the output is not a local folder that can be written.
    """
    if "://" in output:
        raise TaskInputError(f"The layout webdataset needs a local output folder, not {output}.")
    folder = Path(output).expanduser()
    names: list[str] = []
    waiting = list(samples)
    try:
        while waiting:
            name = f"{len(names):06d}.tar"
            with atomic_path(folder / name) as partial, tarfile.open(partial, "w") as tar:
                while waiting and tar.offset < _SHARD_BYTES:
                    _add_sample(tar, *waiting.pop(0))
            names.append(name)
        for old in folder.glob("[0-9][0-9][0-9][0-9][0-9][0-9].tar"):
            if old.name not in names:
                old.unlink()
    except OSError as error:
        raise TaskInputError(f"{folder} cannot be written: {error}.") from error
    return names


def _add_sample(tar: tarfile.TarFile, stem: str, video: ArtifactRef, values: Mapping[str, Any]) -> None:
    text = json.dumps(dict(values), default=str, ensure_ascii=False).encode()
    with open_artifact(video).local_copy(EDITED) as path:
        # Neither times nor owners: the same samples give the same bytes
        entry = tarfile.TarInfo(f"{stem}{SUFFIX}")
        entry.size = path.stat().st_size
        with path.open("rb") as file:
            tar.addfile(entry, file)
    entry = tarfile.TarInfo(f"{stem}.json")
    entry.size = len(text)
    tar.addfile(entry, io.BytesIO(text))


def _size(location: str) -> int | None:
    try:
        if "://" in location:
            filesystem, remote = fsspec.core.url_to_fs(location)
            return int(filesystem.info(remote)["size"])
        return Path(location).expanduser().stat().st_size
    except (OSError, ValueError, ImportError):
        return None


def _write(location: str, data: bytes) -> None:
    try:
        if "://" in location:
            filesystem, remote = fsspec.core.url_to_fs(location)
            filesystem.pipe_file(remote, data)
        else:
            write_atomic(Path(location).expanduser(), data)
    except (OSError, ValueError, ImportError) as error:
        raise TaskInputError(f"{location} cannot be written: {error}.") from error
