"""The source clip as a local file, wherever it is stored."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from storage.secrets import without_secrets
from storage.video import Notes, pack_pictures, probe
from tasks.errors import TaskInputError
from tasks.planning.local_path import is_local, local_path
from tasks.planning.picture_listing import is_picture, is_pictures, list_pictures
from tasks.planning.source_policy import check_url, open_filesystem

__all__ = ["check_video", "clip_name", "kept_downloads", "local_video", "packing_notes"]

_DEFAULT_RATE = Fraction(25)
_PACKED, _NOTES = "pictures.mov", "notes.json"


@dataclass(slots=True)
class _Downloads:
    """Clips that were downloaded, or made of pictures, for one run: by URL, or by pictures and rate."""

    folder: Path
    paths: dict[str, Path] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def path(self, url: str) -> Path:
        """Return the local copy of a URL, downloaded the first time."""
        with self.lock:
            if url not in self.paths:
                path = self.folder / str(len(self.paths)) / _file_name(url)
                path.parent.mkdir()
                _download(url, path)
                self.paths[url] = path
            return self.paths[url]

    def packed(self, video: str, rate: Fraction | None) -> Path:
        """Return a video of pictures, made the first time, with notes on what they lost in a file next to it."""
        key = f"{video} at {rate}"
        with self.lock:
            if key not in self.paths:
                path = self.folder / str(len(self.paths)) / _PACKED
                path.parent.mkdir()
                notes = Notes()
                if rate is None:
                    notes.rate_assumed(_DEFAULT_RATE)
                pack_pictures(list_pictures(video), path, rate=rate or _DEFAULT_RATE, notes=notes)
                path.with_name(_NOTES).write_text(json.dumps(notes.lines), encoding="utf-8")
                self.paths[key] = path
            return self.paths[key]


_DOWNLOADS: ContextVar[_Downloads | None] = ContextVar("wave_downloads", default=None)


def check_video(video: str, *, rate: Fraction | None = None) -> None:
    """Check quickly that a local clip is a video, that there are pictures, or that a URL may be read.

    Raises:
        TaskInputError: if no picture is found, or a rate is given for a clip with times of its own.
        VideoError: if the file does not exist, or it is not a video.
        TaskInputError: if the URL may not be read, or its driver is missing.
    """
    if _has_pictures(video, rate):
        list_pictures(video)
    elif "://" in video:
        check_url(video)
    else:
        probe(local_path(video))


def _has_pictures(video: str, rate: Fraction | None) -> bool:
    """Return whether a clip is made of pictures: a folder, a glob, or one picture with a rate."""
    if is_pictures(video):
        return True
    if rate is not None and not is_picture(video):
        raise TaskInputError(
            f"The rate is for pictures, and {clip_name(video)} has times of its own: leave --rate out."
        )
    return rate is not None


def clip_name(video: str) -> str:
    """Return the file name of a path or URL."""
    if is_local(video):
        return (local_path(video) if "://" in video else Path(video)).absolute().name
    return PurePosixPath(unquote(urlsplit(video).path)).name


@contextmanager
def kept_downloads() -> Iterator[None]:
    """Download each URL at most once in this context, which may be entered again inside itself.

    Tasks that run in threads of this process share the downloads; those on other machines make their own.
    """
    with _downloads():
        yield


@contextmanager
def local_video(video: str, *, rate: Fraction | None = None) -> Iterator[Path]:
    """Yield a local path of the clip; a URL is downloaded for as long as the context lasts, or `kept_downloads`.

    A folder or a glob of pictures, or one picture with a rate, becomes a video for the same time.

    Args:
        video: path or URL.
        rate: pictures per second; 25 by default.

    Raises:
        TaskInputError: if the URL cannot be read, or there are no pictures.
        VideoError: if a picture cannot be read.
    """
    if _has_pictures(video, rate):
        with _downloads() as downloads:
            yield downloads.packed(video, rate)
        return
    if "://" not in video:
        yield local_path(video)
        return
    with _downloads() as downloads:
        yield downloads.path(video)


def packing_notes(path: Path) -> list[str]:
    """Return notes on what pictures lost when `local_video` made a video of them; none for other clips."""
    if path.name != _PACKED or not path.with_name(_NOTES).is_file():
        return []
    return list(json.loads(path.with_name(_NOTES).read_text(encoding="utf-8")))


@contextmanager
def _downloads() -> Iterator[_Downloads]:
    """Yield the downloads of the context around this one, or new ones that end with it."""
    if (kept := _DOWNLOADS.get()) is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="wave-") as folder:
        made = _Downloads(Path(folder))
        token = _DOWNLOADS.set(made)
        try:
            yield made
        finally:
            _DOWNLOADS.reset(token)


def _file_name(url: str) -> str:
    return clip_name(url) or "clip"


def _download(url: str, path: Path) -> None:
    try:
        filesystem, remote = open_filesystem(url)
        filesystem.get_file(remote, str(path))
    except TaskInputError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise TaskInputError(without_secrets(f"The clip {url} cannot be read: {error}.")) from None
