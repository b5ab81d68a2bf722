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


def claim(files: Files, path: str, digest: str, *, discard: Callable[[], None]) -> None:
    """Create the artifact's group and the groups above it; call `discard` first if another digest owns the path."""
    folders = path.split("/")
    ancestors = ["/".join([*folders[:depth], layout.NODE]) for depth in range(len(folders))]
    own = f"{path}/{layout.NODE}"
    found = files.read_many([*ancestors, own])
    if not _has_digest(found.get(own), digest):
        if layout.load(found.get(own)) is not None:
            discard()
        files.write(own, layout.group({"digest": digest}))
    for key in ancestors:
        if key not in found:
            files.write(key, layout.group({}))


def _has_digest(group: bytes | None, digest: str | None) -> bool:
    node = layout.load(group)
    return node is not None and (digest is None or node.get("attributes") == {"digest": digest})
