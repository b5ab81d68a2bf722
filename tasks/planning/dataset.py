"""The request for a data set: edits of many clips, validated once."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from tasks.errors import TaskInputError
from tasks.planning.faults import near_names
from tasks.planning.option_errors import request_sentence
from tasks.planning.request import EditRequest, Location, Words, edit_request
from tasks.planning.row_filter import parse_filter

__all__ = ["DatasetRequest", "Layout", "dataset_name", "dataset_request", "load_dataset_settings", "parse_shard"]

Layout = Literal["tree", "flat", "webdataset"]
_ROW = ("video", "prompt")  # what a row itself states of its edit
_MOST_BRACKETS = 100
_LIMIT = re.compile(r"([0-9]+)|([0-9]+(?:\.[0-9]+)?)%")


def parse_shard(text: str) -> tuple[int, int]:
    """Read a shard I/N into (I, N), with I from 1 to N.

    Raises:
        TaskInputError: for anything else.
    """
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise TaskInputError(f"The shard {text!r} is not of the form I/N with I from 1 to N, for example 2/8.")
    return int(match[1]), int(match[2])


def _checked(check: Callable[[str], object]) -> AfterValidator:
    """Keep a text that a function accepts."""

    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


def _check_limit(text: str) -> None:
    match = _LIMIT.fullmatch(text)
    if match is None or float(match[2] or 0) > 100:
        raise TaskInputError(f"The max failures {text!r} are not a number of rows or a percentage, such as 20 or 5%.")


def _as_text(value: Any) -> Any:
    """Let a settings file state a number without quotes."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Check settings of an edit; those with a dot in their name, of the method, are joined in `set`."""
    named = tuple(f"{name}={value}" for name, value in given.items() if "." in name)
    given = {name: value for name, value in given.items() if "." not in name}
    if named:
        before = edit_request(video="any", prompt="any", set=given.get("set", ())).set
        given["set"] = (*before, *named)
    _check_names(given, _edit_settings(), kind="setting of an edit")
    request = edit_request(video="any", prompt="any", **given)
    return {name: getattr(request, name) for name in given}


def _edit_settings() -> list[str]:
    return [name for name in EditRequest.model_fields if name not in _ROW]


def _spell_out_settings(schema: dict[str, Any]) -> None:
    """Let a form show one field for each setting."""
    properties = EditRequest.model_json_schema()["properties"]
    schema |= {"additionalProperties": False, "properties": {name: properties[name] for name in _edit_settings()}}


class DatasetRequest(BaseModel):
    """Edits of many clips: one for each row of a manifest, or for each video of a folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Location = Field(
        description="A manifest (CSV, TSV, JSONL, JSON or Parquet), a folder of videos or a glob; a path or a URL."
    )
    prompt: Words | None = Field(
        default=None, description="Prompt of the rows that have none, with {column} and {a|b|c} filled in."
    )
    output: Location | None = Field(
        default=None, description="Folder or URL for the edited clips; by default they stay in the workspace."
    )
    overwrite: bool = Field(
        default=False, description="Replace existing outputs that the same row of this data set has not made."
    )
    where: Annotated[Words, _checked(parse_filter)] | None = Field(
        default=None, description="Take only the rows that match, for example: folder = 'cat' and steps >= 20."
    )
    limit: int | None = Field(default=None, ge=1, description="Take at most this many rows, from the first.")
    sample: int | None = Field(
        default=None, ge=0, description="Take rows at random instead of from the first; this is the seed."
    )
    shard: Annotated[Words, _checked(parse_shard)] | None = Field(
        default=None, description="Take one part, I/N: number I of N, with all rows of a source in one part."
    )
    only: Literal["failed", "missing", "all"] = Field(
        default="all", description="Take the rows that failed, those never finished, or all: failed, missing or all."
    )
    variants: int = Field(default=1, ge=1, le=10_000, description="Variants of each row that does not say.")
    attempts: int = Field(default=3, ge=1, le=100, description="How often a row is tried before it counts as failed.")
    max_failures: Annotated[Words, BeforeValidator(_as_text), _checked(_check_limit)] | None = Field(
        default=None, description="Stop when more rows have failed: a number, or a percentage such as 5%."
    )
    layout: Layout = Field(
        default="tree", description="Folders like the ids, one flat folder, or tar files: tree, flat or webdataset."
    )
    keep: Literal["results", "edits", "all"] = Field(
        default="all", description="What the workspace keeps of finished clips: results, edits (keyframes too) or all."
    )
    defaults: Annotated[dict[str, Any], AfterValidator(_check_defaults)] = Field(
        default={},
        description="Settings of wave edit for all rows that have no value of their own.",
        json_schema_extra=_spell_out_settings,
    )

    @model_validator(mode="after")
    def _check_layout(self) -> DatasetRequest:
        """Tar files are written as a whole: they cannot be made of some rows and leave those of the others."""
        if self.layout == "webdataset" and self.output is not None:
            if "://" in self.output:
                raise TaskInputError(f"The layout webdataset needs a local output folder, not {self.output}.")
            if self.only != "all":
                raise TaskInputError("The layout webdataset needs all rows, of which complete ones cost nothing.")
        return self

    def allowed_failures(self, rows: int) -> int | None:
        """Return how many of the rows may fail before the run stops, rounded down; None for any number."""
        match = _LIMIT.fullmatch(self.max_failures or "")
        if match is None:
            return None
        return int(match[1]) if match[1] else int(rows * float(match[2]) / 100)


def dataset_request(**fields: Any) -> DatasetRequest:
    """Validate a request from the outside.

    Raises:
        TaskInputError: one sentence about the first field that is wrong or unknown.
    """
    _check_names(fields, list(DatasetRequest.model_fields), kind="setting of a data set")
    try:
        return DatasetRequest(**fields)
    except ValidationError as error:
        raise TaskInputError(request_sentence(error, arguments=("source",))) from None


def load_dataset_settings(path: Path) -> dict[str, Any]:
    """Read fields of a request from a TOML or YAML file; those of `defaults` form a table of that name.

    The values are not validated, since options of a command may replace them; `dataset_request` does that.

    Raises:
        TaskInputError: one sentence, if the file cannot be read, or about the first unknown name.
    """
    if path.suffix.lower() not in _READERS:
        raise TaskInputError(f"The settings {path} must end with one of {', '.join(_READERS)}.")
    try:
        found = _READERS[path.suffix.lower()](path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TaskInputError(f"There is no settings file {path}.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise TaskInputError(f"The settings {path} cannot be read: {reason}.") from error
    fields: dict[str, Any] = {} if found is None else found
    if not isinstance(fields, dict):
        raise TaskInputError(f"The settings {path} must be a table of names and values.")
    _check_names(fields, list(DatasetRequest.model_fields), kind="setting of a data set")
    if isinstance(defaults := fields.get("defaults"), dict):
        _check_names(defaults, _edit_settings(), kind="setting of an edit")
    return fields


def _yaml(text: str) -> Any:
    """Read YAML, but not what would take the reader minutes: its time grows with the square of the open brackets.

    Raises:
        ValueError, yaml.YAMLError: if it cannot be read.
    """
    changes = itertools.accumulate((each in "[{") - (each in "]}") for each in text)
    if max(changes, default=0) > _MOST_BRACKETS:
        raise ValueError(f"more than {_MOST_BRACKETS} brackets are open at once")
    return yaml.safe_load(text)


_READERS: Mapping[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".yaml": _yaml,
    ".yml": _yaml,
}


def _check_names(given: Mapping[str, Any], known: list[str], *, kind: str) -> None:
    unknown = next((str(name) for name in given if name not in known), None)
    if unknown is None:
        return
    belongs = "defaults" in known and unknown in _edit_settings()
    advice = "it belongs in defaults" if belongs else near_names(unknown, known)
    raise TaskInputError(f"There is no {kind} {unknown}: {advice}.")


def dataset_name(source: str) -> str:
    """Return the name of a data set, one word: the file or folder that it is read from, without its suffix."""
    path = source.split("://", 1)[-1].split("*", 1)[0].rstrip("/")
    stem = PurePosixPath(path).stem or "dataset"
    return re.sub(r"[^A-Za-z0-9_.+=@-]", "_", stem).lstrip(".+=@-") or "dataset"
