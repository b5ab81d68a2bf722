"""Data sets of tiny drawn clips, and what earlier runs would have left of them in a workspace."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from storage.status_table import StatusRecord, StatusTable
from storage.video import write_video
from storage.workspace import Workspace, open_artifact
from tasks.artifacts import EDITED, REPORT
from tasks.planning.bulk import plan_rows
from tasks.planning.dataset import dataset_name, dataset_request
from tasks.planning.plan import Execution
from tasks.planning.row import manifest_columns
from tasks.planning.rows import order_by_source, read_rows
from tasks.planning.source_facts import read_source_facts
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import random_scene

__all__ = ["dataset_command", "save_clips", "save_complete_results", "save_manifest", "save_source_facts"]

_SETTINGS = {"steps": 1, "keyframe_interval": 2}


def save_clips(folder: Path, count: int, *, size: tuple[int, int] = (48, 64), frames: int = 3) -> list[Path]:
    """Draw a clip and save it several times; a few bytes that players skip make every file another clip."""
    scene = render(random_scene(3, size=size, frame_count=frames))
    first = folder / "drawn.mp4"
    write_video(first, scene.frames, timestamps=range(frames), time_base=Fraction(1, 12))
    (folder / "clips").mkdir()
    paths = [folder / "clips" / f"{number:06d}.mp4" for number in range(count)]
    content = first.read_bytes()
    for number, path in enumerate(paths):
        path.write_bytes(content + (16).to_bytes(4) + b"free" + number.to_bytes(8))
    return paths


def save_manifest(
    folder: Path,
    clips: Sequence[Path],
    *,
    rows: int,
    name: str = "set",
    settings: Mapping[str, int] = _SETTINGS,
) -> Path:
    """Write a manifest in which the rows go around the clips, each time with another prompt."""
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "source", "prompt", *settings])
        for number in range(rows):
            clip, prompt = clips[number % len(clips)], f"a star {number // len(clips)}"
            writer.writerow([f"row{number:06d}", clip, prompt, *settings.values()])
    return path


def dataset_command(manifest: Path, folder: Path) -> tuple[str, ...]:
    """Return the arguments of `wave` that run a manifest in the workspace of a folder."""
    return "dataset", str(manifest), "--workspace", str(folder / "workspace")


def save_source_facts(clips: Sequence[Path], folder: Path) -> None:
    """Remember the facts of clips, as an earlier run would have."""
    read_source_facts(((str(clip), None) for clip in clips), Workspace.open(folder / "workspace"), remember=True)


def save_complete_results(manifest: Path, folder: Path) -> None:
    """Store results of all rows, of a few bytes each, as an earlier run would have stored real ones."""
    workspace = Workspace.open(folder / "workspace")
    rows = order_by_source(read_rows(dataset_request(source=str(manifest))))
    bulk = plan_rows(rows, execution=Execution(workspace=workspace.url))
    records = []
    for item in bulk.rows:
        if item.video is None or item.report is None:
            continue
        video, report = open_artifact(item.video), open_artifact(item.report)
        video.write_bytes(EDITED, b"a video")
        video.complete()
        report.write_json(REPORT, {"stages": {}, "scores": {}})
        report.complete()
        cells: dict[str, Any] = {name: values[0] for name, values in manifest_columns([item.row]).items()}
        identity = {f"identity_{name}": value for name, value in item.identity.items()}
        digest = item.identity["result"]
        records.append(StatusRecord(id=item.row.id, state="done", digest=digest, manifest=cells | identity))
    StatusTable(workspace, dataset_name(str(manifest))).append(records)
