"""Real clips for a comparison, read from a table with one row per clip and edit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.digest import digest_file, digest_of
from storage.errors import StorageError
from storage.video import probe, read_frames
from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import Edit, EvaluationClip
from tasks.evaluation.clips.mask_files import mask_files, read_masks
from tasks.planning.input_video import clip_name, local_video
from tasks.planning.local_path import is_local, local_path
from tasks.planning.source_policy import check_local, read_policy
from wave_ops.resize import analysis_size, resize_frames
from wave_ops.shot_detection import detect_cuts

__all__ = ["FRAMES", "ManifestRow", "read_clip", "read_manifest"]

FRAMES = 33
"""Frames taken of a clip, from its start, if the row does not say how many."""
_VERSION = 1  # of how frames and cuts are read
_NEEDED = ("video", "source_prompt", "prompt")
_ALSO = {"source": "video", "id": "name"}  # columns of a data set's manifest
_SUFFIXES = (".csv", ".json", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One row: a clip and its edit."""

    name: str
    video: str
    """Path or URL."""
    source_prompt: str
    prompt: str
    frames: int
    mask: str
    """Path of what the edit may change, for `read_masks`; "" for none."""
    digest: str
    """Of the file and everything else that changes the clip, except its name."""


def read_manifest(path: Path, *, count: int | None = None) -> tuple[ManifestRow, ...]:
    """Read a table of clips and check that every video can be read.

    Args:
        path: .csv, .json or .parquet with the columns video, source_prompt and prompt, and optionally name, frames
            and mask. A relative path starts at the table's folder, below which local videos and masks are, or in a
            folder that `tasks.planning.source_policy` allows. A manifest of a data set, with the columns source and id
            in place of video and name, is read as well.
        count: how many rows to take, from the first; all by default.

    Raises:
        TaskInputError: one sentence about the file, or about the first row that is wrong, counted from 1.
    """
    table = _read_table(path)
    names = {old: new for old, new in _ALSO.items() if new not in table.columns}
    table = table.rename(columns=names)
    missing = [column for column in _NEEDED if column not in table.columns]
    if missing:
        has = ", ".join(map(str, table.columns)) or "none"
        raise TaskInputError(f"The manifest {path} lacks the column {missing[0]}; it has {has}.")
    records = table.head(len(table) if count is None else count).to_dict("records")
    if not records:
        raise TaskInputError(f"The manifest {path} has no rows.")
    return _distinct([_row(_Cells(path, number, record)) for number, record in enumerate(records, start=1)])


def read_clip(row: ManifestRow) -> EvaluationClip:
    """Read a row's frames, shrunk to at most 512 x 512 pixels of area, and detect their cuts.

    Raises:
        VideoError: if the video can no longer be read.
        TaskInputError: if its mask cannot.
    """
    with local_video(row.video) as path:
        frames = np.stack([_fitted(frame) for _, frame in islice(read_frames(path), row.frames)])
    return EvaluationClip(
        name=row.name,
        group="real",
        frames=frames,
        caption=row.source_prompt,
        edits=(Edit(kind="prompt", prompt=row.prompt),),
        cuts=detect_cuts(frames),
        mask=read_masks(Path(row.mask), count=len(frames)) if row.mask else None,
        digest=row.digest,
    )


def _fitted(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    fitted: NDArray[np.uint8] = resize_frames(frame[None], analysis_size((height, width)))[0]
    return fitted


def _read_table(path: Path) -> pd.DataFrame:
    if path.suffix.lower() not in _SUFFIXES:
        raise TaskInputError(f"The manifest {path} must end with one of {', '.join(_SUFFIXES)}.")
    if not path.is_file():
        raise TaskInputError(f"There is no manifest {path}.")
    try:
        return _parse(path)
    except (OSError, ValueError) as error:  # the base class of the errors of pandas, its parsers and Arrow
        raise TaskInputError(f"The manifest {path} cannot be read: {str(error).splitlines()[0]}.") from error


def _parse(path: Path) -> pd.DataFrame:
    """Read every cell as text: "None" and "1e3" are prompts like any other."""
    match path.suffix.lower():
        case ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False)
        case ".json":
            return pd.read_json(path, dtype=False)
    return pd.read_parquet(path)


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells of one row, as text."""

    path: Path
    number: int
    values: Mapping[Any, Any]

    def text(self, column: str) -> str:
        value = self.values.get(column)
        return "" if value is None or value is pd.NA or value != value else str(value).strip()

    def fail(self, why: str) -> TaskInputError:
        return TaskInputError(f"Row {self.number} of {self.path} {why}.")


def _row(cells: _Cells) -> ManifestRow:
    video, prompt = cells.text("video"), cells.text("prompt")
    if not video or not prompt:
        raise cells.fail(f"has no {'video' if not video else 'prompt'}")
    if "://" not in video:
        video = str(cells.path.parent / Path(video).expanduser())
    root = cells.path.parent
    if is_local(video) and (reason := check_local(local_path(video).absolute(), root=root, policy=read_policy())):
        raise cells.fail(f"names a video that cannot be used: {reason}")
    try:
        with local_video(video) as file:
            probe(file)
            content = digest_file(file)
    except (StorageError, TaskInputError) as error:
        raise cells.fail(f"names a video that cannot be used: {error}") from error
    frames, source_prompt, mask = _frames(cells), cells.text("source_prompt"), _mask(cells)
    return ManifestRow(
        name=cells.text("name") or Path(clip_name(video)).stem,
        video=video,
        source_prompt=source_prompt,
        prompt=prompt,
        frames=frames,
        mask=mask,
        digest=digest_of("real clip", _VERSION, content, source_prompt, prompt, frames, *_mask_content(mask)),
    )


def _mask(cells: _Cells) -> str:
    """Return the path of a row's mask, once its files are found."""
    mask = cells.text("mask")
    if not mask:
        return ""
    path = (cells.path.parent / Path(mask).expanduser()).absolute()
    if reason := check_local(path, root=cells.path.parent, policy=read_policy()):
        raise cells.fail(f"names a mask that cannot be used: {reason}")
    try:
        mask_files(path)
    except TaskInputError as error:
        raise cells.fail(f"names a mask that cannot be used: {error}") from error
    return str(path)


def _mask_content(mask: str) -> list[str]:
    return [digest_file(file) for file in mask_files(Path(mask))] if mask else []


def _frames(cells: _Cells) -> int:
    text = cells.text("frames").removesuffix(".0")  # a column of integers with a missing value is read as floats
    if not text:
        return FRAMES
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise cells.fail(f"requests {text!r} frames; write an integer from 1, or nothing for {FRAMES}")
    return int(text)


def _distinct(rows: list[ManifestRow]) -> tuple[ManifestRow, ...]:
    """Add the row's number to names that several rows share, such as rows of one video with several prompts."""
    counts = Counter(row.name for row in rows)
    return tuple(
        replace(row, name=f"{row.name}-{number}") if counts[row.name] > 1 else row
        for number, row in enumerate(rows, start=1)
    )
