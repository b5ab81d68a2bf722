"""Manifests from the prompt files of published benchmarks of video editing."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from zipfile import BadZipFile

import openpyxl
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import TaskInputError
from tasks.planning.clip_listing import list_clips
from tasks.planning.folder_manifest import relative_source
from tasks.planning.manifest_table import Columns
from tasks.planning.templates import escape_braces

__all__ = ["BENCHMARKS", "benchmark_columns"]

_LOVEU_KINDS: Final = {
    "style": "Style Change Caption",
    "object": "Object Change Caption",
    "background": "Background Change Caption",
    "multiple": "Multiple Changes Caption",
}
"""Columns of edits, by the kind of edit."""
_LOVEU_NAME, _LOVEU_SOURCE = "Video name", "Our GT caption"


class _Edit(BaseModel):
    """One edit of a benchmark."""

    model_config = ConfigDict(frozen=True, strict=True, str_strip_whitespace=True)

    video: str = Field(min_length=1)
    """Name of the video, without a suffix."""
    source_prompt: str
    prompt: str = Field(min_length=1)
    kind: str


def _five_bench(path: Path) -> Iterator[_Edit]:
    """Read edit1_FiVE.json to edit6_FiVE.json: a list of objects; the kind of edit is in the file's name."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    for entry in entries:
        yield _Edit(
            video=entry["video_name"],
            source_prompt=entry["source_prompt"],
            prompt=entry["target_prompt"],
            kind=path.stem.partition("_")[0],
        )


def _loveu_tgve(path: Path) -> Iterator[_Edit]:
    """Read the table of LOVEU-TGVE 2023: four edits of each video; titles of its parts are rows without captions."""
    table = _sheet(path) if path.suffix.lower() == ".xlsx" else _csv(path)
    heading = [str(cell or "").strip() for cell in next(table, [])]
    places = {name: heading.index(name) for name in (_LOVEU_NAME, _LOVEU_SOURCE)}
    kinds = {kind: heading.index(name) for kind, name in _LOVEU_KINDS.items()}
    for row in table:
        cells = [str(cell or "").strip() for cell in row] + [""] * len(heading)
        for kind, place in kinds.items():
            if cells[place]:
                yield _Edit(
                    video=cells[places[_LOVEU_NAME]],
                    source_prompt=cells[places[_LOVEU_SOURCE]],
                    prompt=cells[place],
                    kind=kind,
                )


def _v2vbench(path: Path) -> Iterator[_Edit]:
    """Read config.yaml: videos under `data`, each with its edits."""
    for video in yaml.safe_load(path.read_text(encoding="utf-8"))["data"]:
        for edit in video["edit"]:
            yield _Edit(
                video=video["video_id"],
                source_prompt=video.get("prompt") or "",
                prompt=edit["prompt"],
                kind=edit.get("type") or "",
            )


BENCHMARKS: Final[Mapping[str, Callable[[Path], Iterator[_Edit]]]] = MappingProxyType(
    {"five-bench": _five_bench, "loveu-tgve": _loveu_tgve, "v2vbench": _v2vbench}
)
"""Readers of prompt files, by the name of the benchmark."""


def benchmark_columns(file: Path, *, benchmark: str, videos: str, masks: Path | None, start: Path) -> Columns:
    """Return the manifest of a benchmark's prompt file: id, source, source_prompt, prompt, kind, and by option mask.

    Args:
        file: the prompt file, in the benchmark's layout.
        benchmark: one of `BENCHMARKS`.
        videos: folder, glob or URL of the videos, which are found by their names at any depth.
        masks: a folder with a mask for each video: a file or a folder of its name, at any depth.
        start: folder of the manifest: sources and masks below it are written relative to it.

    Raises:
        TaskInputError: one sentence, if the benchmark is unknown, the file does not have its layout, or a video is
            missing.
    """
    if benchmark not in BENCHMARKS:
        raise TaskInputError(f"There is no benchmark {benchmark!r}; choose from {', '.join(BENCHMARKS)}.")
    edits = _read(file, benchmark)
    sources = _sources(edits, videos, file=file)
    counts, ids = Counter[str](), list[str]()
    for edit in edits:
        counts[edit.video] += 1
        ids.append(f"{edit.video}/{counts[edit.video]}")
    columns: dict[str, Sequence[object]] = {
        "id": ids,
        "source": [relative_source(sources[edit.video], start) for edit in edits],
        "source_prompt": [escape_braces(edit.source_prompt) for edit in edits],
        "prompt": [escape_braces(edit.prompt) for edit in edits],
        "kind": [edit.kind for edit in edits],
    }
    if masks is not None:
        found = _masks(masks)
        columns["mask"] = [relative_source(found[edit.video], start) if edit.video in found else "" for edit in edits]
    return columns


def _read(file: Path, benchmark: str) -> list[_Edit]:
    wrong = f"The prompt file {file} does not have the layout of {benchmark}"
    try:
        edits = list(BENCHMARKS[benchmark](file))
    except FileNotFoundError:
        raise TaskInputError(f"There is no prompt file {file}.") from None
    except KeyError as error:
        raise TaskInputError(f"{wrong}: an entry lacks {error}.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise TaskInputError(f"{wrong}: the {first['loc'][0]} cannot be {first['input']!r}.") from None
    except (OSError, TypeError, AttributeError, ValueError, yaml.YAMLError, BadZipFile, csv.Error) as error:
        raise TaskInputError(f"{wrong}: {str(error).splitlines()[0].rstrip('.')}.") from error
    if not edits:
        raise TaskInputError(f"{wrong}: it has no edits.")
    return edits


def _sources(edits: Sequence[_Edit], videos: str, *, file: Path) -> dict[str, str]:
    """Return the source of each video, by its name."""
    listed = list_clips(videos).columns
    found = defaultdict[str, list[str]](list)
    for stem, source in zip(listed["stem"], listed["source"], strict=True):
        found[str(stem)].append(str(source))
    names = list(dict.fromkeys(edit.video for edit in edits))
    missing = [name for name in names if name not in found]
    if missing:
        raise TaskInputError(
            f"Of the {len(names)} videos of {file}, {len(missing)} are not in {videos}, such as {missing[0]!r}."
        )
    twice = next((name for name in names if len(found[name]) > 1), None)
    if twice is not None:
        raise TaskInputError(f"{videos} has two videos {twice!r}: {found[twice][0]} and {found[twice][1]}.")
    return {name: found[name][0] for name in names}


def _masks(folder: Path) -> dict[str, str]:
    """Return what may be a mask, by its name: folders first, then files."""
    if not folder.is_dir():
        raise TaskInputError(f"There is no folder {folder} of masks.")
    paths = sorted(folder.absolute().rglob("*"))
    files = {path.stem: str(path) for path in paths if path.is_file()}
    return files | {path.name: str(path) for path in paths if path.is_dir()}


def _csv(path: Path) -> Iterator[Sequence[Any]]:
    return csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))


def _sheet(path: Path) -> Iterator[Sequence[Any]]:
    """Read the first sheet of a workbook."""
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        yield from book.worksheets[0].iter_rows(values_only=True)
    finally:
        book.close()
