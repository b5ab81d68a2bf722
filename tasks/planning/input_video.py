"""The source clip as a local file, wherever it lies."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import fsspec

from storage.video import probe
from tasks.errors import TaskInputError

__all__ = ["check_video", "clip_name", "local_video"]


def check_video(video: str) -> None:
    """Check quickly that a local clip is one; what lies behind a URL shows later.

    Raises:
        VideoError: if there is no such file, or it is no video.
    """
    if "://" not in video:
        probe(Path(video).expanduser())


def clip_name(video: str) -> str:
    """Give the file name of a path or URL."""
    return PurePosixPath(unquote(urlsplit(video).path)).name if "://" in video else Path(video).name


@contextmanager
def local_video(video: str) -> Iterator[Path]:
    """Give a path to the clip; what lies behind a URL is copied for as long as the context lasts.

    Raises:
        TaskInputError: if the URL cannot be read.
    """
    if "://" not in video:
        yield Path(video).expanduser()
        return
    with tempfile.TemporaryDirectory(prefix="wave-") as folder:
        path = Path(folder) / (clip_name(video) or "clip")
        _download(video, path)
        yield path


def _download(url: str, path: Path) -> None:
    try:
        filesystem, remote = fsspec.core.url_to_fs(url)
        filesystem.get_file(remote, str(path))
    except (OSError, ValueError, ImportError) as error:
        raise TaskInputError(f"The clip {url} cannot be read: {error}.") from None
