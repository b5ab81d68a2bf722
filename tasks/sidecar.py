"""The record next to a delivered video: what it was made from, and which edit, or row of a data set, has made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from storage.digest import to_json

if TYPE_CHECKING:
    from tasks.planning.plan import EditPlan

__all__ = ["SIDECAR", "is_maker", "sidecar_record"]

SIDECAR = ".provenance.json"
"""What is added to the name of the video."""


def sidecar_record(plan: EditPlan, *, output: Mapping[str, Any], row: Mapping[str, Any] | None = None) -> bytes:
    """Return the content of the record.

    Args:
        plan: the edit.
        output: name and digest of the video.
        row: the row of a data set that it is of, by name of the data set, id and variant.
    """
    from tasks.provenance import provenance  # noqa: PLC0415  (`wave --help` answers at once)

    record = {**provenance(plan), **({} if row is None else {"row": dict(row)}), "output": dict(output)}
    return f"{json.dumps(to_json(record), indent=2, ensure_ascii=False)}\n".encode()


def is_maker(data: bytes | None, *, edit: str | None, row: Mapping[str, Any] | None = None) -> bool:
    """Return whether a record says that its video is of an edit, given by its digest, or of a row of a data set."""
    try:
        record = json.loads(data or b"")
        return bool(record["edit"] == edit or (row is not None and record.get("row") == dict(row)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
