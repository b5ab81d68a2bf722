"""Layout of an artifact: names, order of removal, and the JSON documents stored with the arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from storage.errors import WorkspaceError

__all__ = [
    "NODE",
    "PARTS",
    "RECORD",
    "below",
    "build_record",
    "checked_name",
    "checked_path",
    "dump",
    "group",
    "has_chunks",
    "is_whole",
    "load",
    "load_part",
    "load_record",
    "node_digest",
    "part_key",
    "removal_order",
]

RECORD = "complete.json"
PARTS = "parts"
NODE = "zarr.json"
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]*")
_RECORD_VERSION = 1


def checked_path(path: str) -> str:
    """Return the path if it stays inside the workspace and is safe on every file system.

    Raises:
        WorkspaceError: if it does not or is not.
    """
    if _is_path(path):
        return path
    raise WorkspaceError(
        f"{path!r} is not a path inside a workspace: use names of letters, digits and _.+=@- separated by /"
    )


def _is_path(path: str) -> bool:
    return all(_SEGMENT.fullmatch(segment) for segment in path.split("/"))


def checked_name(name: str) -> str:
    """Return the name if an array or a file of an artifact may have it.

    Raises:
        WorkspaceError: if it is reserved or leaves the artifact.
    """
    if checked_path(name).partition("/")[0] in (RECORD, PARTS) or NODE in name.split("/"):
        raise WorkspaceError(f"{name} is a reserved name in an artifact")
    return name


def part_key(name: str) -> str:
    """Return the key of a part's record, relative to the artifact.

    Raises:
        WorkspaceError: if the part's name is not one word.
    """
    if "/" in checked_path(name):
        raise WorkspaceError(f"the name of a part must be one word, got {name!r}")
    return f"{PARTS}/{name}.json"


def removal_order(key: str) -> tuple[int, str]:
    """Return a sort key by which an interrupted removal never leaves what passes for finished work.

    The completion record goes first, then the parts, the content, the descriptions of arrays, and last the group,
    since its digest marks what remains as remains.
    """
    if key == RECORD:
        return (0, key)
    if key == NODE:
        return (4, key)
    if key.endswith(f"/{NODE}"):
        return (3, key)
    return (1 if key.startswith(f"{PARTS}/") else 2, key)


def build_record(present: Mapping[str, int], *, digest: str, metadata: object) -> dict[str, Any]:
    """Build the completion record of an artifact from the sizes of its files, by key."""
    names = sorted(key.removesuffix(f"/{NODE}") for key in present if key.endswith(f"/{NODE}"))
    elsewhere = (f"{PARTS}/", *(f"{name}/" for name in names))
    files = {key: present[key] for key in sorted(present) if key not in (RECORD, NODE)}
    return {
        "version": _RECORD_VERSION,
        "digest": digest,
        "arrays": {name: below(present, name) for name in names},
        "files": {key: size for key, size in files.items() if not key.startswith(elsewhere)},
        "metadata": metadata,
    }


def load_record(data: bytes | None) -> dict[str, Any] | None:
    """Parse a completion record; None for absent or damaged bytes, or a version that this code does not know."""
    record = load(data)
    if record is None or record.get("version") != _RECORD_VERSION or not isinstance(record.get("digest"), str):
        return None
    arrays = record.get("arrays")
    whole = isinstance(arrays, dict) and all(map(_are_sizes, arrays.values())) and _are_sizes(record.get("files"))
    return record if whole and isinstance(record.get("metadata"), dict) else None


def _are_sizes(value: object) -> bool:
    return isinstance(value, dict) and all(type(size) is int for size in value.values())


def _recorded_sizes(record: Mapping[str, Any]) -> dict[str, int]:
    """Return the size of every file that a completion record lists, by key."""
    chunks = {f"{name}/{key}": size for name, sizes in record["arrays"].items() for key, size in sizes.items()}
    return {**chunks, **record["files"]}


def is_whole(record: Mapping[str, Any], present: Mapping[str, int]) -> bool:
    """Return whether the group, without which nothing is read, and every file of a record have their sizes."""
    sizes = _recorded_sizes(record) | {NODE: len(group({"digest": record["digest"]}))}
    return all(present.get(key) == size for key, size in sizes.items())


def load_part(data: bytes | None, *, digest: str | None) -> dict[str, Any] | None:
    """Parse the record of a finished part; None for absent or damaged bytes, or another digest than a given one."""
    part = load(data)
    if part is None or (digest is not None and part.get("digest") != digest):
        return None
    chunks = part.get("chunks")
    whole = isinstance(chunks, dict) and _are_sizes(chunks) and all(map(_is_path, chunks))
    return part if whole and isinstance(part.get("metadata"), dict) else None


def node_digest(data: bytes | None) -> str | None:
    """Return the digest in the description of an artifact's group; None for another one, or damaged bytes."""
    attributes = (load(data) or {}).get("attributes")
    digest = attributes.get("digest") if isinstance(attributes, dict) else None
    return digest if isinstance(digest, str) else None


def has_chunks(part: Mapping[str, Any], present: Mapping[str, int]) -> bool:
    """Return whether all chunks of a finished part are among the present files, with their recorded sizes."""
    return all(present.get(key) == size for key, size in part["chunks"].items())


def below(present: Mapping[str, int], name: str) -> dict[str, int]:
    """Return the sizes of the files below a name, by key relative to it."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): size for key, size in sorted(present.items()) if key.startswith(prefix)}


def group(attributes: Mapping[str, str]) -> bytes:
    """Return the description of a Zarr v3 group."""
    return dump({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)})


def dump(value: object) -> bytes:
    """Return a value as JSON, always the same bytes for the same value."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def load(data: bytes | None) -> dict[str, Any] | None:
    """Parse a JSON object; None for absent or damaged bytes, so that a damaged document counts as absent."""
    try:
        value = None if data is None else json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
