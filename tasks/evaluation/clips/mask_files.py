"""Masks of what an edit of a real clip may change, as benchmarks publish them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.errors import StorageError
from storage.video import read_frames
from tasks.errors import TaskInputError

__all__ = ["mask_files", "read_masks"]

_IMAGES: Final = (".png", ".jpg", ".jpeg", ".bmp")
_INSIDE: Final = 127
"""Brightness beyond which a pixel is inside; half, since JPEG and video are not exact."""


def mask_files(path: Path) -> tuple[Path, ...]:
    """Return the files of a mask: the images of a folder by their names, or the path itself.

    Raises:
        TaskInputError: one sentence, if there is nothing.
    """
    if path.is_dir():
        files = tuple(sorted(file for file in path.iterdir() if file.suffix.lower() in _IMAGES))
        if not files:
            raise TaskInputError(f"The folder {path} of a mask contains no image: {', '.join(_IMAGES)}.")
        return files
    if not path.is_file():
        raise TaskInputError(f"The mask {path} does not exist.")
    return (path,)


def read_masks(path: Path, *, count: int) -> NDArray[np.bool_]:
    """Read a mask: one image for all frames, a folder with one image for each frame, or a video.

    Images with a palette, such as those of DAVIS, number their objects: all of them are inside.

    Args:
        path: the image, folder or video.
        count: frames to read.

    Returns:
        (count, height, width), True where an edit may change something.

    Raises:
        TaskInputError: one sentence, if it cannot be read, has too few frames, or several sizes.
    """
    files = mask_files(path)
    try:
        read = _video(path) if files == (path,) and path.suffix.lower() not in _IMAGES else map(_image, files)
        found = list(islice(read, count))
    except (OSError, StorageError) as error:
        raise TaskInputError(f"The mask {path} cannot be read: {error}.") from error
    if files == (path,) and len(found) == 1:
        found *= count
    if len(found) < count:
        raise TaskInputError(f"The mask {path} has {len(found)} frames, and {count} are needed.")
    if len({mask.shape for mask in found}) > 1:
        raise TaskInputError(f"The mask {path} has images of several sizes.")
    return np.stack(found)


def _image(file: Path) -> NDArray[np.bool_]:
    with Image.open(file) as image:
        inside: NDArray[np.bool_] = (
            np.asarray(image) > 0 if image.mode == "P" else np.asarray(image.convert("L")) > _INSIDE
        )
    return inside


def _video(path: Path) -> Iterator[NDArray[np.bool_]]:
    return (frame.mean(axis=2) > _INSIDE for _, frame in read_frames(path))
