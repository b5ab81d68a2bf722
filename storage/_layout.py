"""How an artifact lies in its folder: names, the order of removal, the JSON documents beside the arrays."""

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
    "load",
    "load_record",
    "part_key",
    "recorded_sizes",
    "removal_order",
]

RECORD = "complete.json"
PARTS = "parts"
NODE = "zarr.json"
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]*")
_RECORD_VERSION = 1


def checked_path(path: str) -> str:
    """The path itself, if it stays inside the workspace and is safe on every file system.

    Raises:
        WorkspaceError: if not.
    """
    if all(_SEGMENT.fullmatch(segment) for segment in path.split("/")):
        return path
    raise WorkspaceError(
        f"{path!r} is no path inside a workspace: use names of letters, digits and _.+=@- separated by /"
    )


def checked_name(name: str) -> str:
    """The name itself, if an array or a file of an artifact may bear it.

    Raises:
        WorkspaceError: if not.
    """
    if checked_path(name).partition("/")[0] in (RECORD, PARTS) or NODE in name.split("/"):
        raise WorkspaceError(f"{name} is a reserved name in an artifact")
    return name


def part_key(name: str) -> str:
    """Where the record of a part lies.

    Raises:
        WorkspaceError: if the part's name is not one word.
    """
    if "/" in checked_path(name):
        raise WorkspaceError(f"a part's name is one word, got {name!r}")
    return f"{PARTS}/{name}.json"


def removal_order(key: str) -> tuple[int, str]:
    """Sort key such that a removal killed half-way leaves nothing that passes for finished work.

    The completion record goes first, then the parts, the content, the arrays' descriptions, and last the group, which
    says whose remains these are.
    """
    if key == RECORD:
        return (0, key)
    if key == NODE:
        return (4, key)
    if key.endswith(f"/{NODE}"):
        return (3, key)
    return (1 if key.startswith(f"{PARTS}/") else 2, key)


def build_record(present: Mapping[str, int], *, digest: str, metadata: object) -> dict[str, Any]:
    """The completion record of an artifact with these files, given with their sizes."""
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
    """The completion record in the bytes; None where there is none that this version understands."""
    record = load(data)
    known = record is not None and record.get("version") == _RECORD_VERSION
    return record if known else None


def recorded_sizes(record: Mapping[str, Any]) -> dict[str, int]:
    """All that a completion record lists: size by key."""
    chunks = {f"{name}/{key}": size for name, sizes in record["arrays"].items() for key, size in sizes.items()}
    return {**chunks, **record["files"]}


def below(present: Mapping[str, int], name: str) -> dict[str, int]:
    """The files below a name, by key relative to it."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): size for key, size in sorted(present.items()) if key.startswith(prefix)}


def group(attributes: Mapping[str, str]) -> bytes:
    """The description of a Zarr v3 group."""
    return dump({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)})


def dump(value: object) -> bytes:
    """A value as JSON, always the same for the same value."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def load(data: bytes | None) -> dict[str, Any] | None:
    """The JSON object in the bytes; None where there is none: a damaged document is no document."""
    try:
        value = None if data is None else json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
