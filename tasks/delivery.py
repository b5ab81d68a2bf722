"""Results of a data set outside the workspace: the videos, and a table that names them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pandas as pd

from storage.csv_cells import escape_cell, unescape_cell
from storage.digest import digest_file
from storage.files import Files, LocalFiles, atomic_path
from storage.reference import ArtifactRef
from storage.workspace import Workspace, open_artifact
from tasks.artifacts import edited_name
from tasks.errors import TaskInputError
from tasks.planning.local_path import is_local, local_path
from tasks.sidecar import SIDECAR, is_maker

__all__ = [
    "Sample",
    "check_replaceable",
    "check_tar_files",
    "deliver_video",
    "files_of",
    "is_delivered",
    "output_location",
    "write_metadata",
    "write_webdataset",
]

_SHARD_BYTES = 2**30
_PARTS = 3  # files of a sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One video of a WebDataset."""

    stem: str
    video: ArtifactRef
    """The artifact of the edited clip."""
    values: Mapping[str, Any]
    """For the .json."""
    record: Callable[[Mapping[str, str]], bytes]
    """See `deliver_video`."""


def output_location(output: str, path: str, *, suffix: str) -> str:
    """Return the path or URL of a row's video below the output folder."""
    below = quote(path) if output.startswith("file://") else path
    return f"{output.rstrip('/')}/{below}{suffix}"


def is_delivered(video: ArtifactRef, location: str) -> bool:
    """Return whether the location has a file of the edited clip's size, and the record of this edit next to it."""
    artifact = open_artifact(video)
    size: int = artifact.record()["files"][edited_name(artifact)]
    files, key = files_of(location)
    if files.sizes_of([key]).get(key) != size:
        return False
    return is_maker(_sidecar_of(files, key), edit=video.digest)


def check_replaceable(
    location: str, *, row: Mapping[str, Any], video: ArtifactRef | None = None, overwrite: bool = False
) -> None:
    """Check that what a location has may be replaced: this row of a data set has made it, and nobody has changed it.

    What an object store has counts as unchanged, since it would have to be read as a whole.

    Args:
        location: where a row's video is delivered.
        row: see `sidecar_record`.
        video: the edited clip, if it is there: the same bytes may be written again, whoever wrote them.
        overwrite: whether anything may be replaced.

    Raises:
        TaskInputError: if not.
    """
    files, key = files_of(location)
    if overwrite or key not in files.sizes_of([key]):
        return
    record = _sidecar_of(files, key)
    if is_maker(record, edit=None, row=row) and _is_unchanged(files, key, record):
        return
    if video is not None and isinstance(files, LocalFiles):
        artifact = open_artifact(video)
        with artifact.local_copy(edited_name(artifact)) as path:
            if digest_file(path) == _local_digest(files, key):
                return
    raise TaskInputError(
        f"The output {location} exists, and this row is not known to have made it; --overwrite replaces it."
    )


def _sidecar_of(files: Files, key: str) -> bytes | None:
    sidecar = f"{key}{SIDECAR}"
    return files.read_many([sidecar]).get(sidecar)


def _is_unchanged(files: Files, key: str, record: bytes | None) -> bool:
    if not isinstance(files, LocalFiles):
        return True
    output = json.loads(record or b"{}").get("output", {})
    return _local_digest(files, key) in {output.get("digest"), output.get("replaces")}


def _local_digest(files: LocalFiles, key: str) -> str:
    with files.local_copy(key) as path:
        return digest_file(path)


def deliver_video(video: ArtifactRef, location: str, *, record: Callable[[Mapping[str, str]], bytes]) -> None:
    """Copy an edited clip to a path, or to the URL of an object store, whole or not at all, and its record before it.

    Args:
        video: the edited clip.
        location: where to.
        record: returns the record for the name and the digest of the output.

    Raises:
        TaskInputError: if it cannot be written there; the workspace keeps the clip.
        WorkspaceError: if the artifact has no such file, or a store refuses it.
    """
    files, key = files_of(location)
    artifact = open_artifact(video)
    with (
        artifact.local_copy(edited_name(artifact)) as path,
        _writing(location),
    ):
        # First, so that a video without its record is never there; with what it replaces, should this be interrupted
        made = {"name": key.rpartition("/")[2], "digest": digest_file(path)}
        if isinstance(files, LocalFiles) and key in files.sizes_of([key]):
            made["replaces"] = _local_digest(files, key)
        files.write(f"{key}{SIDECAR}", record(made))
        with files.local_output(key) as partial:
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
    files, key = files_of(location)
    data = files.read_many([key]).get(key)
    if data is not None:
        # As text, since 007 is not 7
        before = _escaped(pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False), unescape_cell)
        if "file_name" in before:
            frame = pd.concat([before[~before["file_name"].isin(frame["file_name"])], frame])
    with _writing(location):
        files.write(key, _escaped(frame, escape_cell).to_csv(index=False).encode())


def check_tar_files(output: str, *, shard: str | None = None, overwrite: bool = False) -> None:
    """Check that the tar files of an output folder may be replaced: they are those of a data set.

    Raises:
        TaskInputError: if one is not known to be.
    """
    if overwrite:
        return
    for path in _tar_files(Path(output).expanduser(), _prefix(shard)):
        try:
            with tarfile.open(path) as tar:
                ours = any(member.name.endswith(SIDECAR) for member in islice(tar, _PARTS))
        except (OSError, tarfile.TarError):
            ours = False
        if not ours:
            raise TaskInputError(f"The output {path} exists, and no data set made it; --overwrite replaces it.")


def _tar_files(folder: Path, prefix: str) -> Iterator[Path]:
    yield from sorted(folder.glob(f"{prefix}[0-9][0-9][0-9][0-9][0-9][0-9].tar"))


def _prefix(shard: str | None) -> str:
    return "" if shard is None else f"{shard.replace('/', '-of-')}-"


def write_webdataset(output: str, samples: Sequence[Sample], *, shard: str | None = None) -> list[str]:
    """Write tar files of about a gigabyte for WebDataset: of each sample the video, a .json and a .provenance.json.

    Args:
        output: a local output folder.
        samples: all of them.
        shard: the part I/N that the samples are; its tar files have names of their own.

    Returns:
        The names of the tar files. Those of an earlier run that are no longer needed are removed.

    Raises:
        TaskInputError: if the output is not a local folder that can be written.
    """
    if "://" in output:
        raise TaskInputError(f"The layout webdataset needs a local output folder, not {output}.")
    folder = Path(output).expanduser()
    prefix = _prefix(shard)
    names: list[str] = []
    waiting = deque(samples)
    try:
        while waiting:
            name = f"{prefix}{len(names):06d}.tar"
            with atomic_path(folder / name) as partial, tarfile.open(partial, "w") as tar:
                while waiting and tar.offset < _SHARD_BYTES:
                    _add_sample(tar, waiting.popleft())
            names.append(name)
        for old in _tar_files(folder, prefix):
            if old.name not in names:
                old.unlink()
    except OSError as error:
        raise TaskInputError(f"{folder} cannot be written: {error}.") from error
    return names


def _escaped(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a table with its texts and column names changed."""
    changed = frame.map(lambda value: change(value) if isinstance(value, str) else value)
    return changed.rename(columns=lambda name: change(str(name)))


def _add_sample(tar: tarfile.TarFile, sample: Sample) -> None:
    text = json.dumps(dict(sample.values), default=str, ensure_ascii=False).encode()
    artifact = open_artifact(sample.video)
    name = edited_name(artifact)
    with artifact.local_copy(name) as path:
        video = f"{sample.stem}{PurePosixPath(name).suffix}"
        # Neither times nor owners: the same samples give the same bytes
        entry = tarfile.TarInfo(video)
        entry.size = path.stat().st_size
        with path.open("rb") as file:
            tar.addfile(entry, file)
        record = sample.record({"name": video, "digest": digest_file(path)})
    for suffix, data in ((".json", text), (SIDECAR, record)):
        entry = tarfile.TarInfo(f"{sample.stem}{suffix}")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))


def files_of(location: str) -> tuple[Files, str]:
    """Return the files of a folder or an object store, and the key of a location in them."""
    if is_local(location):
        path = local_path(location)
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
