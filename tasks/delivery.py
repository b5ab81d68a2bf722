"""Results of a data set outside the workspace: the videos, and a table that names them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from storage.csv_cells import escape_cell, unescape_cell
from storage.files import Files, LocalFiles, atomic_path
from storage.reference import ArtifactRef
from storage.workspace import Workspace, open_artifact
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
    files, key = _files(location)
    return files.sizes_of([key]).get(key) == size


def deliver_video(video: ArtifactRef, location: str) -> None:
    """Copy an edited clip to a path, or to the URL of an object store, whole or not at all.

    Raises:
        TaskInputError: if it cannot be written there; the workspace keeps the clip.
        WorkspaceError: if the artifact has no such file, or a store refuses it.
    """
    files, key = _files(location)
    with open_artifact(video).local_copy(EDITED) as path, _writing(location), files.local_output(key) as partial:
        shutil.copyfile(path, partial)


def write_metadata(output: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write metadata.csv, with the column `file_name` that a Hugging Face VideoFolder reads.

    A VideoFolder takes one such file, which must name every video: the rows of other videos, of earlier runs or of
    other shards, stay as they are. Two processes must not do this at the same time.

    Args:
        output: the output folder.
        rows: one for each video, with its path below the output folder as `file_name`.

    Raises:
        TaskInputError: if it cannot be written.
    """
    location = f"{output.rstrip('/')}/metadata.csv"
    frame = pd.DataFrame(list(rows))
    files, key = _files(location)
    data = files.read_many([key]).get(key)
    if data is not None:
        # As text, since 007 is not 7
        before = _escaped(pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False), unescape_cell)
        if "file_name" in before:
            frame = pd.concat([before[~before["file_name"].isin(frame["file_name"])], frame])
    with _writing(location):
        files.write(key, _escaped(frame, escape_cell).to_csv(index=False).encode())


def write_webdataset(
    output: str, samples: Sequence[tuple[str, ArtifactRef, Mapping[str, Any]]], *, shard: str | None = None
) -> list[str]:
    """Write tar files of about a gigabyte for WebDataset: of each sample an .mp4 and a .json with the same stem.

    Args:
        output: a local output folder.
        samples: stem, artifact of the edited clip, and values for the .json.
        shard: the part I/N that the samples are; its tar files have names of their own.

    Returns:
        The names of the tar files. Those of an earlier run that are no longer needed are removed.

    Raises:
        TaskInputError: if the output is not a local folder that can be written.
    """
    if "://" in output:
        raise TaskInputError(f"The layout webdataset needs a local output folder, not {output}.")
    folder = Path(output).expanduser()
    prefix = "" if shard is None else f"{shard.replace('/', '-of-')}-"
    names: list[str] = []
    waiting = deque(samples)
    try:
        while waiting:
            name = f"{prefix}{len(names):06d}.tar"
            with atomic_path(folder / name) as partial, tarfile.open(partial, "w") as tar:
                while waiting and tar.offset < _SHARD_BYTES:
                    _add_sample(tar, *waiting.popleft())
            names.append(name)
        for old in folder.glob(f"{prefix}[0-9][0-9][0-9][0-9][0-9][0-9].tar"):
            if old.name not in names:
                old.unlink()
    except OSError as error:
        raise TaskInputError(f"{folder} cannot be written: {error}.") from error
    return names


def _escaped(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a table with its texts and column names changed."""
    changed = frame.map(lambda value: change(value) if isinstance(value, str) else value)
    return changed.rename(columns=lambda name: change(str(name)))


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


def _files(location: str) -> tuple[Files, str]:
    """Return the files of a folder or an object store, and the key of a location in them."""
    if "://" not in location or location.startswith("file://"):
        path = Path(location.removeprefix("file://")).expanduser()
        return LocalFiles(path.parent), path.name
    scheme, _, rest = location.partition("://")
    bucket, _, key = rest.partition("/")
    return Workspace.open(f"{scheme}://{bucket}").files, key


@contextmanager
def _writing(location: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TaskInputError(f"{location} cannot be written: {error}.") from error
