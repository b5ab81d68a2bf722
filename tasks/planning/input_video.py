"""The source clip as a local file, wherever it is stored."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from storage.secrets import without_secrets
from storage.video import probe
from tasks.errors import TaskInputError
from tasks.planning.source_policy import check_url, open_filesystem

__all__ = ["check_video", "clip_name", "kept_downloads", "local_video"]


@dataclass(slots=True)
class _Downloads:
    """Clips that were downloaded for one run, by URL."""

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


_DOWNLOADS: ContextVar[_Downloads | None] = ContextVar("wave_downloads", default=None)


def check_video(video: str) -> None:
    """Check quickly that a local clip is a video, and that a URL may be read; without a connection.

    Raises:
        VideoError: if there is no such file, or it is not a video.
        TaskInputError: if the URL may not be read, or its driver is missing.
    """
    if "://" in video:
        check_url(video)
    else:
        probe(Path(video).expanduser())


def clip_name(video: str) -> str:
    """Return the file name of a path or URL."""
    return PurePosixPath(unquote(urlsplit(video).path)).name if "://" in video else Path(video).name


@contextmanager
def kept_downloads() -> Iterator[None]:
    """Download each URL at most once in this context, which may be entered again inside itself.

    Tasks that run in threads of this process share the downloads; those on other machines make their own.
    """
    with _downloads():
        yield


@contextmanager
def local_video(video: str) -> Iterator[Path]:
    """Yield a local path of the clip; a URL is downloaded for as long as the context lasts, or `kept_downloads`.

    Raises:
        TaskInputError: if the URL cannot be read.
    """
    if "://" not in video:
        yield Path(video).expanduser()
        return
    with _downloads() as downloads:
        yield downloads.path(video)


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
