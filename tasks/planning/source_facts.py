"""Facts about source clips, remembered in the workspace so that a source is probed and hashed once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.digest import digest_file_once, digest_of
from storage.errors import StorageError
from storage.video import VideoInfo, probe
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.planning.input_video import clip_name, local_video
from tasks.planning.outline import ClipFacts
from tasks.planning.source_policy import open_filesystem

__all__ = ["SourceFacts", "clip_facts", "read_source_facts"]

_FOLDER = "tables/sources"
_VERSION = 1
_MARKS = ("ETag", "etag", "LastModified", "mtime", "created")
"""What file systems call the mark of a file that changes with its content, the best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """Facts about one source, or the reason why it cannot be used."""

    clip: ClipFacts | None = None
    error: str = ""


def read_source_facts(sources: Iterable[str], workspace: Workspace, *, remember: bool) -> dict[str, SourceFacts]:
    """Return facts about sources; one that is unchanged since it was remembered is not opened.

    Args:
        sources: paths or URLs.
        workspace: where facts are remembered.
        remember: whether new facts are stored; a dry run stores nothing.
    """
    distinct = list(dict.fromkeys(sources))
    keys = {source: f"{_FOLDER}/{digest_of('source', _VERSION, source)}.json" for source in distinct}
    known = workspace.files.read_many(keys.values())
    found = {}
    for source in distinct:
        stamp = _stamp(source)
        remembered = _load(known.get(keys[source]), stamp)
        found[source] = remembered or _inspect(source)
        if remember and remembered is None and stamp is not None and (clip := found[source].clip) is not None:
            workspace.files.write(keys[source], json.dumps({"stamp": stamp, "clip": asdict(clip)}).encode())
    return found


def clip_facts(name: str, digest: str, info: VideoInfo) -> ClipFacts:
    """Return what a plan needs to know of a clip, from its digest and what its file says."""
    return ClipFacts(
        name=name,
        digest=digest,
        frame_count=info.frame_count,
        size=(info.height, info.width),
        conversions=info.conversions,
        hdr=info.hdr,
    )


def _stamp(source: str) -> list[Any] | None:
    """Return what changes when a source does: size and modification time or e-tag; None where that is not known."""
    try:
        if "://" not in source:
            stat = Path(source).expanduser().stat()
            return [stat.st_size, stat.st_mtime_ns]
        filesystem, remote = open_filesystem(source)
        info = filesystem.info(remote)
    except (OSError, ValueError, ImportError):
        return None
    mark = next(
        (str(info[name]) for name in ("ETag", "etag", "LastModified", "mtime", "created") if info.get(name)), None
    )
    return None if mark is None else [info.get("size"), mark]


def _load(data: bytes | None, stamp: list[Any] | None) -> SourceFacts | None:
    if data is None or stamp is None:
        return None
    try:
        value = json.loads(data)
        clip = value["clip"]
        fresh = value["stamp"] == stamp
        facts = ClipFacts(
            name=clip["name"],
            digest=clip["digest"],
            frame_count=clip["frame_count"],
            size=tuple(clip["size"]),
            conversions=tuple(clip["conversions"]),
            hdr=clip["hdr"],
        )
    except (ValueError, KeyError, TypeError):
        return None
    return SourceFacts(clip=facts) if fresh else None


def _inspect(source: str) -> SourceFacts:
    try:
        with local_video(source) as path:
            clip = clip_facts(clip_name(source), digest_file_once(path), probe(path))
    except (StorageError, TaskInputError) as error:
        return SourceFacts(error=str(error))
    return SourceFacts(clip=clip)
