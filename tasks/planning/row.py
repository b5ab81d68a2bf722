"""One row of a data set: an edit of a clip, with its identity and its place in the output."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from storage.video import Encoding
from tasks.errors import TaskInputError
from tasks.planning.dataset import Layout
from tasks.planning.manifest_table import Columns, cell_text
from tasks.planning.request import EditRequest
from tasks.planning.source_facts import Clip
from tasks.planning.templates import escape_braces
from tasks.planning.variants import variant_seed

__all__ = ["PROMPTS", "SETTINGS", "Row", "manifest_columns", "output_path"]

PROMPTS = ("source_prompt", "prompt", "negative_prompt")
"""Columns with templates, in the order in which they are filled in."""
SETTINGS = tuple(name for name in EditRequest.model_fields if name not in {"video", "seed", *PROMPTS})
"""Fields of an edit's request that many rows have in common."""
_OWN = ("id", "variant", "source", *PROMPTS, "seed")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')  # for some file system that results may be copied to
_LONGEST = 200  # bytes of a name, which leaves room for a suffix


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One edit of a data set; its id and variant name it in every run."""

    number: int
    """Number of the data row in the manifest, from 1."""
    id: str
    variant: int
    """From 0."""
    source: str
    """Absolute path or URL of the clip."""
    prompt: str
    """Filled in, like the other prompts here."""
    source_prompt: str
    negative_prompt: str | None
    """None leaves the choice to the model's own advice."""
    seed: int
    """The row's own, from which the seed of the request is derived."""
    settings: Mapping[str, Any] = field(hash=False)
    """The other fields of the request, by name: those of `SETTINGS`."""
    output: str
    """Path of the result, relative to the output folder and without its suffix."""
    extra: Mapping[str, object] = field(hash=False)
    """Cells of further columns, as the manifest has them."""

    @property
    def key(self) -> tuple[str, int]:
        """Id and variant."""
        return self.id, self.variant

    @property
    def request(self) -> EditRequest:
        """The edit itself, with the seed of the variant."""
        return EditRequest(
            video=self.source,
            prompt=self.prompt,
            source_prompt=self.source_prompt,
            negative_prompt=self.negative_prompt,
            seed=variant_seed(self.seed, row_id=self.id, variant=self.variant),
            **self.settings,
        )

    @property
    def clip(self) -> Clip:
        """The source, and the rate of pictures."""
        rate = self.settings.get("rate")
        return self.source, None if rate is None else Fraction(rate)

    @property
    def suffix(self) -> str:
        """The ending of the result's name."""
        return Encoding(container=self.settings.get("format") or "mp4").suffix

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that `text` knows."""
        return (*_OWN, *self.settings, *self.extra)

    def text(self, column: str) -> str:
        """Return what the row has in a column, as text; "" for nothing."""
        if column in _OWN:
            return cell_text(getattr(self, column))
        return cell_text(self.extra[column]) if column in self.extra else _setting_text(self.settings[column])


def manifest_columns(rows: Sequence[Row]) -> Columns:
    """Return the rows as columns of a manifest, from which the same rows are read.

    Every setting is written out, so that the defaults of the request do not matter; a prompt, which no longer has
    columns and choices, has its braces escaped.
    """
    return {
        name: [_cell(row, name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row.columns)
    }


def output_path(row_id: str, *, variant: int, layout: Layout) -> str:
    """Return the path of a result, relative to the output folder and without its suffix.

    That of variant 0 is the id, those of the others end with -v1, -v2 and so on. Characters that some file system does
    not take become _. In the flat layouts / becomes __. A sample's name in a WebDataset ends at its first dot, so that
    dots become _ there.

    Raises:
        TaskInputError: a clause, if a name is too long for a file.
    """
    parts = [_file_name(part) for part in row_id.split("/") if part] or ["_"]
    parts[-1] += f"-v{variant}" if variant else ""
    names = parts if layout == "tree" else ["__".join(parts)]
    if any(len(name.encode()) > _LONGEST for name in names):
        raise TaskInputError(f"it has more than {_LONGEST} bytes, too many for a file's name")
    path = "/".join(names)
    return path.replace(".", "_") if layout == "webdataset" else path


def _file_name(part: str) -> str:
    name = _UNSAFE.sub("_", part).strip().rstrip(".")  # Windows drops dots at the end
    return f"_{name[1:]}" if not name or name.startswith(".") else name  # neither hidden nor ..


def _cell(row: Row, name: str) -> object:
    if name in row.extra:
        return row.extra[name]
    return escape_braces(row.text(name)) if name in PROMPTS else row.text(name)


def _setting_text(value: Any) -> str:
    if isinstance(value, tuple) and all(
        isinstance(item, str) for item in value
    ):  # settings by name, LoRAs, ControlNets
        return "; ".join(value)
    if isinstance(value, tuple):  # a size, height before width
        return "x".join(map(str, reversed(value)))
    return cell_text(value)
