"""Local paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

from tasks.errors import TaskInputError

__all__ = ["file_url", "is_local", "local_path"]

_SCHEME = "file://"
_HOSTS = ("", "localhost")


def is_local(text: str) -> bool:
    """Return whether a location is a path or a file:// URL."""
    return "://" not in text or text.startswith(_SCHEME)


def local_path(text: str) -> Path:
    """Return a path, with ~ and ~user replaced by the home folder, or that of a file:// URL, with %20 as a space.

    Raises:
        TaskInputError: if there is no such user, the URL is of another machine, or the path has a zero byte.
    """
    path = _url_path(text) if text.startswith(_SCHEME) else text
    if "\0" in path:
        raise TaskInputError(f"{text!r} has a zero byte, which no name of a file has.")
    try:
        return Path(path) if text.startswith(_SCHEME) else Path(path).expanduser()
    except RuntimeError as error:
        raise TaskInputError(
            f"{text} begins with a home folder that does not exist: write ./{text} for a name."
        ) from error


def file_url(path: str) -> str:
    """Return the file:// URL of an absolute path."""
    return Path(path).as_uri()


def _url_path(url: str) -> str:
    host, slash, rest = url.removeprefix(_SCHEME).partition("/")
    if host.lower() not in _HOSTS or not slash:
        raise TaskInputError(f"The URL {url} must begin with {_SCHEME}/ and have an absolute path.")
    return os.fsdecode(unquote_to_bytes(slash + rest))
