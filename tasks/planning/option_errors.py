"""Errors of requests in one sentence that names the option."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from tasks.errors import TaskInputError

__all__ = ["option_name", "request_sentence"]

_NAMED = re.compile(r" \(--[a-z-]+\)$")
_LONGEST = 200  # characters of a wrong value that are worth showing


def option_name(field: str) -> str:
    """Return the option of a field of a request: "--keyframe-interval" for "keyframe_interval"."""
    return f"--{field.replace('_', '-')}"


def request_sentence(error: ValidationError, *, arguments: Collection[str] = ()) -> str:
    """Return one sentence about the first field that is wrong, with its option.

    Args:
        error: of a request.
        arguments: fields that a command takes without an option.
    """
    first: Mapping[str, Any] = error.errors(include_url=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    option = f" ({option_name(field)})" if field and field not in arguments else ""
    if isinstance(ours := first.get("ctx", {}).get("error"), TaskInputError):
        text = str(ours).rstrip(".")
        # It may name its option already: a setting in the defaults of a data set has one of its own
        named = _NAMED.search(text) is not None or option.strip(" ()") in text
        return f"{text}{'' if named else option}."
    name = field.replace("_", " ") or "request"
    if first["type"] in {"missing", "string_too_short"}:
        return f"The {name} is missing{option}."
    reason = first["msg"][:1].lower() + first["msg"][1:]
    return f"The {name} cannot be {_shown(first['input'])}: {reason}{option}."


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
