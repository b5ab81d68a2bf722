"""Checks of a manifest's cells: all faults are found, and what many rows have in common is checked once."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pydantic import Field, ValidationError

from tasks.errors import TaskInputError
from tasks.models.controlnets import parse_control
from tasks.planning.dataset import DatasetRequest
from tasks.planning.faults import Fault, ManifestError, near_names
from tasks.planning.local_path import is_local, local_path
from tasks.planning.manifest_table import Table, cell_text, is_scalar
from tasks.planning.picture_listing import fixed_part, is_picture, is_pictures, list_pictures
from tasks.planning.request import EditRequest
from tasks.planning.row import PROMPTS, SETTINGS, Row, output_path
from tasks.planning.source_policy import SourcePolicy, check_local, check_url, read_policy
from tasks.planning.templates import Template, parse_template
from tasks.planning.variants import draw

__all__ = ["check_rows", "check_settings", "check_source"]

_MOST_VARIANTS = 10_000
_NUMBERS = ("seed", "variants", "variant")
_REMEMBERED = 4096  # distinct settings and templates; a manifest in which all differ must not fill the memory


class _Cells(EditRequest):
    """The settings of one row."""

    variants: int = Field(ge=1, le=_MOST_VARIANTS)
    variant: int | None = Field(default=None, ge=0, lt=_MOST_VARIANTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSettings:
    """What one combination of cells means."""

    seed: int = 0
    variants: Sequence[int] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[tuple[str, str], ...] = ()
    """Columns with the reasons."""


def check_rows(table: Table, request: DatasetRequest) -> list[Row]:
    """Return the rows of a manifest, all of them or none.

    Raises:
        ManifestError: with all faults, in the order of the rows.
        TaskInputError: one sentence, if a prompt of the request cannot be used.
    """
    checks = _Checks(table, request)
    rows = [row for index in range(len(table)) for row in checks.row(index)]
    faults = [*checks.faults, *_overwritten(rows, request.output)]
    if faults:
        raise ManifestError(table.title, sorted(faults, key=lambda fault: fault.row))
    return rows


def check_settings(cells: Mapping[str, object], *, defaults: Mapping[str, Any], variants: int) -> RowSettings:
    """Validate those cells of a row that have a value.

    Args:
        cells: by column.
        defaults: fields of `EditRequest` where there is no cell.
        variants: how many there are, where there is no cell.
    """
    try:
        checked = _Cells(**{**defaults, "video": "any", "prompt": "any", "variants": variants, **cells})
    except ValidationError as error:
        # A fault of several settings together, those of the encoding, has no location
        found = reversed(error.errors(include_url=False))
        reasons = {str((each["loc"] or ("format",))[0]): _reason(each) for each in found}
        known = () if "variant" in cells else (0,)  # of which it is checked whether another row has them
        return RowSettings(variants=known, faults=tuple(reversed(reasons.items())))
    if {"variants", "variant"} <= set(cells):
        return RowSettings(faults=(("variant", "the row has a number of variants as well"),))
    return RowSettings(
        seed=checked.seed,
        variants=range(checked.variants) if checked.variant is None else (checked.variant,),
        values={name: getattr(checked, name) for name in SETTINGS},
    )


def check_source(source: str, *, folder: str, policy: SourcePolicy | None) -> tuple[str, str]:
    """Return the absolute path or the URL of a source, and the reason why it cannot be used, or "".

    Args:
        source: as a row has it.
        folder: path or URL at which it starts if it is relative.
        policy: what a manifest may name other than local paths below its folder; None where that was checked before.
    """
    if "://" in folder or "://" in source:
        return _check_remote_source(source, folder=folder, policy=policy)
    try:
        path = Path(source).expanduser()
        path = Path(folder, path)
        # Before a glob looks around
        if policy is not None and (reason := check_local(fixed_part(path), root=Path(folder), policy=policy)):
            return str(path), reason
        if is_pictures(str(path)):
            return str(path), _pictures_reason(path, folder=folder, policy=policy)
        path.stat()
        reason = ""
    except (FileNotFoundError, NotADirectoryError):
        reason = f"there is no file {path}"
    except (OSError, RuntimeError, ValueError) as error:  # no rights, no such home, a null byte
        return source, f"{source!r} cannot be used ({error})"
    return str(path), reason


def _pictures_reason(path: Path, *, folder: str, policy: SourcePolicy | None) -> str:
    """Return why pictures, a folder or a glob, cannot be used, or ""; each must be where a manifest may name files."""
    try:
        pictures = list_pictures(str(path))
    except TaskInputError as error:
        return str(error).rstrip(".")
    if policy is None:
        return ""
    reasons = (check_local(picture, root=Path(folder), policy=policy) for picture in pictures)
    return next(filter(None, reasons), "")


def _check_remote_source(source: str, *, folder: str, policy: SourcePolicy | None) -> tuple[str, str]:
    """Return the URL of a source, or its path, and the reason why it cannot be used, or ""."""
    if "://" not in source and not source.startswith(("/", "~")):
        scheme, _, place = folder.partition("://")
        below = posixpath.normpath(f"{place}/{unquote(source)}")
        if not below.startswith(f"{place.rstrip('/')}/"):
            return source, f"{source} is outside of the manifest's folder {folder}"
        source = f"{scheme}://{place}/{source}"
    if not is_local(source):
        try:
            check_url(source, policy=policy)
        except TaskInputError as error:
            return source, str(error).rstrip(".")
        return source, ""
    root = None if "://" in folder else Path(folder)
    try:
        path = local_path(source)
    except TaskInputError as error:
        return source, str(error).rstrip(".")
    return source, "" if policy is None else check_local(path, root=root, policy=policy)


def _reason(error: Mapping[str, Any]) -> str:
    if isinstance(ours := error.get("ctx", {}).get("error"), TaskInputError):
        text = str(ours).rstrip(".")
        # Another first word may be a name
        return text[:1].lower() + text[1:] if text.startswith(("The ", "There ", "Unknown ")) else text
    return f"it cannot be {error['input']!r}, {error['msg'][:1].lower()}{error['msg'][1:]}"


class _Checks:
    """One pass over a table, with what was found of cells that occur again."""

    def __init__(self, table: Table, request: DatasetRequest) -> None:
        self.table, self.request = table, request
        self.faults = list(table.faults)
        self._check_columns()
        self._broken = {fault.row for fault in table.faults}
        self._shared = tuple(name for name in SETTINGS if name in table.columns)
        self._numbers = tuple(name for name in _NUMBERS if name in table.columns)
        used = {"id", "source", *PROMPTS, *SETTINGS, *_NUMBERS}
        self._extra = [name for name in table.columns if name not in used]
        self._texts: dict[str, list[str | None]] = {}
        self._settings = lru_cache(_REMEMBERED)(self._checked_settings)
        self._sources = lru_cache(maxsize=None)(
            partial(check_source, folder=table.folder, policy=None if table.trusted else read_policy())
        )
        self._templates = lru_cache(_REMEMBERED)(self._checked_template)
        self._keys: dict[tuple[str, int], int] = {}
        self._outputs: dict[str, int] = {}
        given = {**request.defaults, "prompt": request.prompt}
        self._defaults = {name: self._default(name, given[name]) for name in PROMPTS if given.get(name) is not None}

    def row(self, index: int) -> Iterator[Row]:
        """Yield the variants of a row that have no fault, and collect the faults."""
        if index + 1 in self._broken:
            return
        before = len(self.faults)
        row_id, source = self._text("id", index, needed=True), self._source(index)
        shared, numbers = self._row_settings(self._shared, index), self._row_settings(self._numbers, index)
        if source and shared.values.get("rate") and not (is_pictures(source) or is_picture(source)):
            self._fault(index, "rate", "it is for pictures, and the source has times of its own")
        templates, control = self._row_templates(index), self._controls(index, shared.values.get("control", ()))
        for variant in numbers.variants:
            output = self._claim(index, row_id, variant)
            draws = partial(draw, seed=numbers.seed, row_id=row_id, variant=variant)
            prompts = self._fill(index, templates, draws) if len(self.faults) == before else {}
            if len(self.faults) > before:
                return
            yield Row(
                number=index + 1,
                id=row_id,
                variant=variant,
                source=source,
                prompt=prompts["prompt"],
                source_prompt=prompts.get("source_prompt", ""),
                negative_prompt=prompts.get("negative_prompt"),
                seed=numbers.seed,
                settings={**shared.values, "control": control},
                output=output,
                extra={name: self.table.columns[name][index] for name in self._extra},
            )

    def _fault(self, index: int, column: str, reason: str) -> None:
        self.faults.append(Fault(row=index + 1, id=self._column("id")[index] or "", column=column, reason=reason))

    def _check_columns(self) -> None:
        needed = ["id", "source"] if self.request.prompt else ["id", "source", "prompt"]
        has = list(self.table.columns)
        missing = [name for name in needed if name not in has]
        if missing:
            faults = [Fault(row=0, column=name, reason=f"it is missing; {near_names(name, has)}") for name in missing]
            raise ManifestError(self.table.title, faults)

    def _column(self, name: str) -> list[str | None]:
        """Return a column as text, with None for what cannot be text."""
        if name not in self._texts:
            self._texts[name] = [cell_text(value) if is_scalar(value) else None for value in self.table.columns[name]]
        return self._texts[name]

    def _text(self, name: str, index: int, *, needed: bool = False) -> str:
        text = self._column(name)[index] if name in self.table.columns else ""
        if text is None:
            self._fault(index, name, "it is not text")
        elif needed and not text:
            self._fault(index, name, "it is empty")
        return text or ""

    def _source(self, index: int) -> str:
        text = self._text("source", index, needed=True)
        if not text:
            return ""
        source, reason = self._sources(text)
        if reason:
            self._fault(index, "source", reason)
        return source

    def _controls(self, index: int, specs: Sequence[str]) -> tuple[str, ...]:
        """Return the control videos of a row, KIND=VIDEO, which are named as sources are."""
        found = []
        for kind, location in map(parse_control, specs):
            video, reason = self._sources(location)
            found.append(f"{kind}={video}")
            if reason:
                self._fault(index, "control", reason)
        return tuple(found)

    def _row_settings(self, names: tuple[str, ...], index: int) -> RowSettings:
        found = self._settings(names, tuple([_hashable(self.table.columns[name][index]) for name in names]))
        for column, reason in found.faults:
            self._fault(index, column, reason)
        return found

    def _checked_settings(self, names: tuple[str, ...], values: tuple[object, ...]) -> RowSettings:
        cells = {name: _stripped(value) for name, value in zip(names, values, strict=True) if cell_text(value)}
        return check_settings(cells, defaults=self.request.defaults, variants=self.request.variants)

    def _row_templates(self, index: int) -> Mapping[str, Template]:
        """Return the templates of a row's prompts, those of the request where it has none."""
        found = dict(self._defaults)
        for name in PROMPTS:
            text = self._text(name, index, needed=name == "prompt" and name not in found)
            template = self._templates(name, text) if text else None
            if isinstance(template, str):
                self._fault(index, name, template)
            elif template is not None:
                found[name] = template
        return found

    def _checked_template(self, name: str, text: str) -> Template | str:
        """Return a template, or the reason why it cannot be used."""
        known = [column for column in self.table.columns if column not in PROMPTS]
        try:
            template = parse_template(text)
            template.check(known if name == "source_prompt" else [*known, "source_prompt"])
        except TaskInputError as error:
            return str(error)
        return template

    def _default(self, name: str, text: str) -> Template:
        template = self._templates(name, text)
        if isinstance(template, str):
            raise TaskInputError(f"The {name.replace('_', ' ')} {text!r} cannot be used: {template}.")
        return template

    def _claim(self, index: int, row_id: str, variant: int) -> str:
        """Return the path of a result, which no other row may have."""
        if not row_id:
            return ""
        other = self._keys.setdefault((row_id, variant), index)
        if other != index:
            self._fault(index, "id", f"row {other + 1} has it, too")
            return ""
        try:
            path = output_path(row_id, variant=variant, layout=self.request.layout)
        except ValueError as error:  # too long, or not valid Unicode
            self._fault(index, "id", str(error))
            return ""
        other = self._outputs.setdefault(path, index)
        if other != index:
            self._fault(index, "id", f"its result would be {path}, like that of row {other + 1}")
        return path

    def _fill(self, index: int, templates: Mapping[str, Template], draws: Callable[[str], int]) -> dict[str, str]:
        filled = {"source_prompt": ""}
        for name in (name for name in PROMPTS if name in templates):
            template = templates[name]
            values = {
                column: filled[column] if column == "source_prompt" else self._text(column, index)
                for column in template.columns
            }
            filled[name] = template.fill(values, partial(_choose, draws, name)).strip()
        if not filled["prompt"]:
            self._fault(index, "prompt", "it is empty once it is filled in")
        return filled


def _choose(draws: Callable[[str], int], name: str, number: int, count: int) -> int:
    return draws(f"choice {number} of {name}") % count


def _hashable(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    return cell_text(value) if isinstance(value, dict) else value


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _overwritten(rows: Sequence[Row], output: str | None) -> Iterator[Fault]:
    """Yield a fault for each row with a result that would replace the source of some row."""
    if output is None:
        return
    folder = output.rstrip("/") if "://" in output else str(Path(output).expanduser().absolute())
    sources = {row.source for row in rows}
    for row in rows:
        path = f"{folder}/{row.output}{row.suffix}"
        if path in sources:
            yield Fault(row=row.number, id=row.id, column="id", reason=f"its result would overwrite the source {path}")
