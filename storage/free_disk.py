"""Free disk of a workspace."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["free_bytes"]


def free_bytes(workspace: str) -> int | None:
    """Return the bytes that are free where a workspace is, or will be; None for one with a URL."""
    if "://" in workspace:
        return None
    folder = next(path for path in (Path(workspace), *Path(workspace).parents) if path.exists())
    return shutil.disk_usage(folder).free
