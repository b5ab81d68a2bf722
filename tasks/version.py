"""The version of this project."""

from __future__ import annotations

from importlib import metadata

__all__ = ["wave_version"]


def wave_version() -> str:
    """Return the version of the installed package."""
    try:
        return metadata.version("wave-edit")
    except metadata.PackageNotFoundError:
        return "(not installed)"
