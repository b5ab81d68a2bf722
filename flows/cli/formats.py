"""The format that the name of an output asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tasks.errors import TaskInputError

__all__ = ["output_format"]

_FORMATS: Mapping[str, str] = {
    **{".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "mkv", ".webm": "webm", ".gif": "gif"},
    ".zip": "png",
}
"""Formats by the ending of the output's name."""


def output_format(output: str | None, *, chosen: str | None) -> str | None:
    """Return the format that an output asks for by its ending, / for a folder of pictures; None leaves it open.

    Raises:
        TaskInputError: if the ending names no format, or another one than was chosen.
    """
    if output is None:
        return chosen
    path = Path(output)
    if chosen == "png" and not path.suffix:
        return chosen
    if output.endswith(("/", os.sep)):
        found: str | None = "png"
    elif os.path.isdir(output):  # noqa: PTH112  (no error where the name is too long)
        raise TaskInputError(
            f"The output {output} is a folder: end it with / for a folder of pictures, or give a file name."
        )
    else:
        found = _FORMATS.get(path.suffix.lower())
    if found is None:
        raise TaskInputError(
            f"The output {output} must end in {', '.join(_FORMATS)}, or in / for a folder of pictures."
        )
    if chosen not in (None, found):
        raise TaskInputError(f"The output {output} is a file of {found}, but the format {chosen} was chosen.")
    return found
