"""Facts about source clips, remembered in the workspace so that a source is probed and hashed once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

from storage.digest import digest_file_once, digest_of
from storage.errors import StorageError
from storage.video import SourceEncoding, probe, source_encoding
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.planning.input_video import clip_name, local_video
from tasks.planning.outline import ClipFacts
from tasks.planning.picture_listing import is_pictures, list_pictures
from tasks.planning.source_policy import open_filesystem

__all__ = ["Clip", "SourceFacts", "clip_facts", "read_source_facts"]

Clip: TypeAlias = tuple[str, Fraction | None]
"""Path or URL of a source, and pictures per second, where it is pictures for which a rate is given."""

_FOLDER = "tables/sources"
_VERSION = 2
_MARKS = ("ETag", "etag", "LastModified", "mtime", "created")
"""What file systems call the mark of a file that changes with its content, the best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """Facts about one source, or the reason why it cannot be used."""

    clip: ClipFacts | None = None
    error: str = ""


def read_source_facts(clips: Iterable[Clip], workspace: Workspace, *, remember: bool) -> dict[Clip, SourceFacts]:
    """Return facts about sources; one that is unchanged since it was remembered is not opened.

    Args:
        clips: the sources.
        workspace: where facts are remembered.
        remember: whether new facts are stored; a dry run stores nothing.
    """
    distinct = list(dict.fromkeys(clips))
    keys = {clip: f"{_FOLDER}/{_key(clip)}.json" for clip in distinct}
    known = workspace.files.read_many(keys.values())
    found = {}
    for clip in distinct:
        stamp = _stamp(clip[0])
        remembered = _load(known.get(keys[clip]), stamp)
        found[clip] = remembered or _inspect(clip)
        if remember and remembered is None and stamp is not None and (facts := found[clip].clip) is not None:
            workspace.files.write(keys[clip], json.dumps({"stamp": stamp, "clip": asdict(facts)}).encode())
    return found


def _key(clip: Clip) -> str:
    source, rate = clip
    return digest_of("source", _VERSION, source, *([] if rate is None else [str(rate)]))


def clip_facts(name: str, digest: str, path: Path) -> ClipFacts:
    """Return what a plan needs to know of a clip, from its digest and what its file says.

    Raises:
        VideoError: if the file is not a video.
    """
    info = probe(path)
    return ClipFacts(
        name=name,
        digest=digest,
        frame_count=info.frame_count,
        size=(info.height, info.width),
        conversions=info.conversions,
        hdr=info.hdr,
        rate=float(info.rate),
        encoded=source_encoding(path),
    )


def _stamp(source: str) -> list[Any] | None:
    """Return what changes when a source does: size and modification time or e-tag; None where that is not known."""
    try:
        if is_pictures(source):
            stats = [(path.name, path.stat()) for path in list_pictures(source)]
            return [digest_of([(name, stat.st_size, str(stat.st_mtime_ns)) for name, stat in stats])]
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
            rate=clip["rate"],
            encoded=SourceEncoding(**clip["encoded"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
    return SourceFacts(clip=facts) if fresh else None


def _inspect(clip_and_rate: Clip) -> SourceFacts:
    source, rate = clip_and_rate
    try:
        with local_video(source, rate=rate) as path:
            clip = clip_facts(clip_name(source), digest_file_once(path), path)
    except (StorageError, TaskInputError) as error:
        return SourceFacts(error=str(error))
    return SourceFacts(clip=clip)
