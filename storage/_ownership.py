"""Ownership of a path by a digest.

The digest of an artifact is an attribute of its Zarr group, written before any content. Whatever is below a group of
another digest is the remains of other inputs or settings: it is never read, and the first write removes it.
"""

from __future__ import annotations

from collections.abc import Callable

from storage import _layout as layout
from storage.files import Files

__all__ = ["claim", "is_owned"]


def is_owned(files: Files, path: str, digest: str | None) -> bool:
    """Return whether the path has the group of an artifact with this digest, or with any for None."""
    key = f"{path}/{layout.NODE}"
    return _has_digest(files.read_many([key]).get(key), digest)


def claim(files: Files, path: str, digest: str, *, discard: Callable[[], None]) -> bool:
    """Create the artifact's group and the groups above it; call `discard` first if the path is not known to be its own.

    What is below a damaged group may be of any digest, so that it is removed, too.

    Returns:
        Whether the group was created, which means that nothing of this artifact is there.
    """
    own = f"{path}/{layout.NODE}"
    present = files.read_many([own]).get(own)
    if _has_digest(present, digest):
        return False
    if present is not None:
        discard()
    for key in _missing_groups(files, path):
        files.write(key, layout.group({}))
    files.write(own, layout.group({"digest": digest}))
    return True


def _missing_groups(files: Files, path: str) -> list[str]:
    """Return the keys of the absent or damaged groups above a path, the outermost first; above a sound one, all are."""
    folders, missing = path.split("/"), list[str]()
    for depth in range(len(folders) - 1, -1, -1):
        key = "/".join([*folders[:depth], layout.NODE])
        if layout.load(files.read_many([key]).get(key)) is not None:
            break
        missing.insert(0, key)
    return missing


def _has_digest(group: bytes | None, digest: str | None) -> bool:
    node = layout.load(group)
    return node is not None and (digest is None or node.get("attributes") == {"digest": digest})
