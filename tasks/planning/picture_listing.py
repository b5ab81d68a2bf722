"""Folders and globs of pictures that are the frames of one clip."""

from __future__ import annotations

import glob
import itertools
import os
import re
from pathlib import Path

from tasks.errors import TaskInputError
from tasks.planning.local_path import local_path
from tasks.planning.natural_order import natural_key

__all__ = ["PICTURE_SUFFIXES", "fixed_part", "is_picture", "is_pictures", "list_pictures"]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".dpx", ".exr")
"""File name endings of pictures, in lower case."""
_MAGIC = re.compile(r"[*?\[]")


def is_pictures(video: str) -> bool:
    """Return whether a clip is a local folder, or a glob that is no file itself."""
    if "://" in video:
        return False
    path = local_path(video)
    return os.path.isdir(path) or (_MAGIC.search(video) is not None and not os.path.exists(path))  # noqa: PTH110, PTH112  (no error where it cannot be reached)


def is_picture(video: str) -> bool:
    """Return whether a clip has the name of one picture."""
    return video.lower().endswith(PICTURE_SUFFIXES)


def fixed_part(path: Path) -> Path:
    """Return a path, or of a glob the folder above the first name with a wildcard."""
    if path.exists():
        return path
    names = itertools.takewhile(lambda name: _MAGIC.search(name) is None, path.parts)
    return Path(*names)


def list_pictures(video: str) -> list[Path]:
    """List the pictures of a folder or a glob in natural order, without hidden ones, or the one picture that is named.

    Raises:
        TaskInputError: if there is none.
    """
    path = local_path(video)
    if os.path.isfile(path):  # noqa: PTH113
        return [path]
    if not is_pictures(video):
        raise TaskInputError(f"There is no file {video}, or it cannot be reached.")
    found = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207  (an absolute pattern)
    names = [str(each) for each in found if not each.name.startswith(".") and each.is_file()]
    pictures = sorted((name for name in names if name.lower().endswith(PICTURE_SUFFIXES)), key=natural_key)
    if not pictures:
        kind = "folder" if path.is_dir() else "glob"
        raise TaskInputError(
            f"{video} is a {kind} without pictures ({', '.join(PICTURE_SUFFIXES[:4])} and others): name a video file."
        )
    return [Path(name) for name in pictures]
