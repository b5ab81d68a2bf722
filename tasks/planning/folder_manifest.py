"""The manifest of a folder: its videos, a prompt for each, and where wanted what a look into each file says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from storage.errors import StorageError
from storage.video import probe
from tasks.errors import TaskInputError
from tasks.planning.clip_listing import list_clips
from tasks.planning.input_video import local_video
from tasks.planning.manifest_table import Columns, manifest_suffix
from tasks.planning.templates import parse_template

__all__ = ["FACTS", "check_manifest_path", "folder_columns", "probed_columns", "relative_source"]

FACTS = ("width", "height", "frame_count", "duration")
"""Columns that `probed_columns` adds: pixels, pixels, a count, and seconds."""


def check_manifest_path(path: Path, *, overwrite: bool) -> None:
    """Check, before anything is listed, that a manifest can be written to a path.

    Raises:
        TaskInputError: one sentence, if not.
    """
    manifest_suffix(str(path), needed=True)
    if path.is_dir():
        raise TaskInputError(f"The manifest {path} is a folder; give a file name.")
    if path.exists() and not overwrite:
        raise TaskInputError(f"The manifest {path} exists; --overwrite replaces it.")


def folder_columns(folder: str, *, prompt: str, start: Path, more: Sequence[str] = ()) -> Columns:
    """Return the columns of a folder's manifest: those of `list_clips`, with a prompt.

    Args:
        folder: folder or glob, a local path or an fsspec URL.
        prompt: the prompt of all rows, which stays a template, or "".
        start: folder of the manifest: local sources below it are written relative to it, so that both can be moved.
        more: names of columns that are added later, which the prompt may refer to.

    Raises:
        TaskInputError: one sentence, if there is no video or the prompt cannot be used.
    """
    listed = dict(list_clips(folder).columns)
    try:
        parse_template(prompt).check([*listed, *more])
    except TaskInputError as error:
        raise TaskInputError(f"The prompt {prompt!r} cannot be used: {error}.") from None
    ids, sources = listed.pop("id"), [relative_source(str(source), start) for source in listed.pop("source")]
    return {"id": ids, "source": sources, "prompt": [prompt.strip()] * len(ids), **listed}


def probed_columns(columns: Columns, *, start: Path) -> tuple[Columns, tuple[str, ...]]:
    """Open every clip, and add the columns of `FACTS`; clips by URL are downloaded one after the other.

    Args:
        columns: a manifest.
        start: folder of the manifest.

    Returns:
        All columns, with None for clips that cannot be read, and one sentence for each of those.
    """
    rows, unread = list[tuple[object, ...]](), list[str]()
    for source in columns["source"]:
        try:
            rows.append(_facts(str(source), start))
        except (StorageError, TaskInputError) as error:
            rows.append((None,) * len(FACTS))
            unread.append(str(error))
    facts = zip(*rows, strict=True)
    return {**columns, **{name: list(values) for name, values in zip(FACTS, facts, strict=True)}}, tuple(unread)


def _facts(source: str, start: Path) -> tuple[object, ...]:
    with local_video(source if "://" in source else str(start / source)) as path:
        info = probe(path)
    return info.width, info.height, info.frame_count, round(info.duration, 3)


def relative_source(source: str, start: Path) -> str:
    """Return the path of a source relative to the folder of a manifest; as it is if it is not below, or is a URL."""
    if "://" in source or not Path(source).is_relative_to(start):
        return source
    inner = Path(source).relative_to(start).as_posix()
    # A reader strips spaces, and takes ~ for a home and :// for a URL
    return source if inner != inner.strip() or inner.startswith("~") or "://" in inner else inner
