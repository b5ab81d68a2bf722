"""Local paths as users write them."""

from __future__ import annotations

from pathlib import Path

from tasks.errors import TaskInputError

__all__ = ["local_path"]


def local_path(text: str) -> Path:
    """Return a path with ~ and ~user replaced by the home folder.

    Raises:
        TaskInputError: if there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise TaskInputError(
            f"{text} begins with a home folder that does not exist: write ./{text} for a name."
        ) from error
