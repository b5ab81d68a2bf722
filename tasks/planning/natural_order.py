"""Natural order of paths: clip 2 comes before clip 10."""

from __future__ import annotations

import re

__all__ = ["natural_key"]


def natural_key(path: str) -> tuple[list[list[str | int]], str]:
    """Return a key that sorts clip 2 before clip 10, folder by folder."""
    return [_words(part) for part in path.split("/")], path


def _words(name: str) -> list[str | int]:
    """Split into text and numbers in turn, so that text is compared with text."""
    return [int(word) if i % 2 else word.casefold() for i, word in enumerate(re.split(r"([0-9]+)", name))]
