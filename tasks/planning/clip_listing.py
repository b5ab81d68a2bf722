"""Folders and globs of videos as manifests: one row for each video, in natural order."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from storage.secrets import without_secrets
from tasks.errors import TaskInputError
from tasks.planning.local_path import file_url, local_path
from tasks.planning.manifest_table import SUFFIXES, Columns, Table, manifest_suffix
from tasks.planning.natural_order import natural_key
from tasks.planning.source_policy import open_filesystem

__all__ = ["VIDEO_SUFFIXES", "is_listing", "list_clips"]

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp"),
)
"""File name endings of videos, in lower case."""
_MAGIC = re.compile(r"[*?\[]")
_ZARR_NODE = "zarr.json"


def is_listing(source: str) -> bool:
    """Return whether a source is a folder or a glob, rather than a manifest.

    Raises:
        TaskInputError: for a local path that is none of the three.
    """
    if "://" not in source and local_path(source).is_dir():
        return True
    if manifest_suffix(source):
        return False
    if "://" in source or _MAGIC.search(source):
        return True
    raise TaskInputError(
        f"There is no folder {source}; a manifest ends with one of {', '.join(SUFFIXES)}, and a glob contains *."
    )


def list_clips(source: str, *, exclude: str | None = None) -> Table:
    """List the videos below a folder, or those that match a glob, in which `**` is any number of folders.

    Hidden files and folders are left out, and Zarr stores, such as a workspace; links to folders are not followed.

    Args:
        source: local path or fsspec URL.
        exclude: a folder to leave out, such as the one that results are written to.

    Returns:
        The columns id (path below the folder, or below the part of the glob without wildcards, without its suffix),
        source, name (of the file), stem (name without its suffix), folder (name of the folder that contains it) and
        index (from 1), all as text.

    Raises:
        TaskInputError: if the place cannot be listed, has no video, or is itself the folder to exclude.
    """
    place = _place(source)
    left_out = None if exclude is None else place.path(exclude)
    if left_out == place.base:
        raise TaskInputError(f"The output {exclude} is the folder of the sources; take another one.")
    paths = [path for path in _videos(place) if left_out is None or not path.startswith(f"{left_out}/")]
    if not paths:
        raise TaskInputError(f"There is no video in the {place.title}; videos end with {', '.join(VIDEO_SUFFIXES)}.")
    columns = _columns(place, sorted(paths, key=natural_key))
    return Table(title=place.title, folder=place.url(place.base), columns=columns, trusted=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A folder of a file system, and the pattern of the paths in it that are wanted."""

    title: str
    filesystem: Any
    local: bool
    """Whether it was written as a path and not as a URL."""
    base: str
    pattern: re.Pattern[str] | None = None
    """Of paths below the base; None for all."""
    depth: int | None = None
    """Levels below the base that are looked through; None for all."""

    def url(self, path: str) -> str:
        """Return a path of the file system as it is written outside."""
        if isinstance(self.filesystem, LocalFileSystem) and not self.local:
            return file_url(path)
        return path if self.local else str(self.filesystem.unstrip_protocol(path))

    def path(self, folder: str) -> str | None:
        """Return the path of a folder as far as it is the base or below it, else None."""
        filesystem, path = _resolve(folder)
        if filesystem is not self.filesystem:  # fsspec keeps one instance for equal arguments
            return None
        linked = isinstance(filesystem, LocalFileSystem)
        inner, outer = (PurePosixPath(Path(each).resolve() if linked else each) for each in (path, self.base))
        return str(PurePosixPath(self.base) / inner.relative_to(outer)) if inner.is_relative_to(outer) else None


def _resolve(place: str) -> tuple[Any, str]:
    """Return the file system of a path or URL, and the path in it."""
    if "://" not in place:
        return fsspec.filesystem("file"), local_path(place).absolute().as_posix()
    try:
        filesystem, path = open_filesystem(place)
    except TaskInputError:
        raise
    except (ValueError, ImportError) as error:
        raise TaskInputError(without_secrets(f"{place} cannot be opened: {error}.")) from None
    return filesystem, path.rstrip("/")


def _place(source: str) -> _Place:
    filesystem, path = _resolve(source)
    local = "://" not in source
    magic = None if local and Path(path).is_dir() else _MAGIC.search(path)
    if magic is None:
        return _Place(title=f"folder {source}", filesystem=filesystem, local=local, base=path)
    base = path[: magic.start()].rpartition("/")[0]
    rest = path[len(base) :].lstrip("/")
    try:
        pattern = re.compile(glob_translate(rest))
    except (ValueError, re.error) as error:
        raise TaskInputError(f"The glob {source} cannot be used: {error}.") from None
    return _Place(
        title=f"glob {source}",
        filesystem=filesystem,
        local=local,
        base=base or "/",
        pattern=pattern,
        depth=None if "**" in rest else rest.count("/") + 1,
    )


def _videos(place: _Place) -> Iterator[str]:
    """Yield the paths of the wanted videos, in no order."""
    try:
        place.filesystem.invalidate_cache()  # drivers cache listings, and folders grow
        listed = place.filesystem.find(place.base, maxdepth=place.depth)
    except (OSError, ValueError) as error:
        raise TaskInputError(f"The {place.title} cannot be listed: {error}.") from None
    stores = {path.rpartition("/")[0] for path in listed if path.endswith(f"/{_ZARR_NODE}")}
    for path in listed:
        inner = _inner(place, path)
        hidden = inner.startswith(".") or "/." in inner
        wanted = place.pattern is None or place.pattern.match(inner)
        if inner.lower().endswith(VIDEO_SUFFIXES) and wanted and not hidden and not _is_below(path, stores):
            yield path


def _inner(place: _Place, path: str) -> str:
    return path[len(place.base.rstrip("/")) + 1 :]


def _is_below(path: str, folders: Collection[str]) -> bool:
    return bool(folders) and any(str(parent) in folders for parent in PurePosixPath(path).parents)


def _columns(place: _Place, paths: Sequence[str]) -> Columns:
    names = [path.rpartition("/")[2] for path in paths]
    return {
        "id": [_inner(place, path).rpartition(".")[0] for path in paths],
        "source": [place.url(path) for path in paths],
        "name": names,
        "stem": [name.rpartition(".")[0] for name in names],
        "folder": [path.split("/")[-2] for path in paths],
        "index": [str(number) for number in range(1, len(paths) + 1)],
    }
