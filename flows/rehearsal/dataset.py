"""The data set of the rehearsal: drawn clips, and a manifest with rows that cannot be edited."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from storage.video import write_video
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import random_scene

__all__ = ["BAD_ROWS", "KILLER", "RehearsalSet", "draw_dataset"]

KILLER: Final = "killer"
"""The row of which every attempt ends with the death of its process."""
BAD_ROWS: Final[Mapping[str, str]] = {
    "not-a-video": "not a video",
    "cut-off": "no frame",
    "no-model": "model",
}
"""Rows that cannot be edited, with a word of the reason that they must fail with."""
_SIZE, _FRAMES, _RATE = (48, 64), 5, 12
_SHORT, _LONG = 2, 30
"""Steps: few, and so many that the process can be killed meanwhile."""
_COLOURS = ("blue", "green", "yellow", "red", "purple", "orange", "white", "black")
_COLUMNS = ("id", "source", "prompt", "model", "steps", "keyframe_interval")


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalSet:
    """A manifest, and which of its rows can be edited."""

    manifest: Path
    good: tuple[str, ...]
    """Ids of the rows that must be complete at the end."""
    killer_clip: Path
    """The source of the row that kills, which no other row has."""


def draw_dataset(folder: Path, rows: int) -> RehearsalSet:
    """Draw 12 clips, and write a manifest in which most rows go around nine of them.

    Args:
        folder: where to; it is created.
        rows: of the manifest, at least 8.
    """
    folder.mkdir(parents=True)
    clips = [_draw(folder / f"clip{number:02d}.mp4", seed=number) for number in range(9)]
    killer = _draw(folder / f"{KILLER}.mp4", seed=9)
    (folder / "not-a-video.mp4").write_text("This is a text.\n")
    whole = clips[0].read_bytes()
    (folder / "cut-off.mp4").write_bytes(whole[: len(whole) // 2])
    good = [_row(number, clips) for number in range(rows - len(BAD_ROWS) - 1)]
    bad = [
        _fields("not-a-video", "not-a-video.mp4"),
        _fields("cut-off", "cut-off.mp4"),
        _fields("no-model", clips[0].name, model=str(folder / "no-such-model")),
    ]
    middle = len(good) // 2
    manifest = folder / "clips.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows([*good[:middle], *bad, _fields(KILLER, killer.name, steps=_LONG), *good[middle:]])
    return RehearsalSet(manifest=manifest, good=tuple(row["id"] for row in good), killer_clip=killer)


def _draw(path: Path, *, seed: int) -> Path:
    scene = render(random_scene(seed, size=_SIZE, frame_count=_FRAMES))
    write_video(path, scene.frames, timestamps=range(_FRAMES), time_base=Fraction(1, _RATE))
    return path


def _row(number: int, clips: list[Path]) -> dict[str, Any]:
    turn, place = divmod(number, len(clips))
    # The first row of each clip takes long enough to be interrupted
    return _fields(f"row{number:03d}", clips[place].name, colour=_COLOURS[turn % 8], steps=_SHORT if turn else _LONG)


def _fields(name: str, source: str, *, colour: str = "blue", steps: int = _SHORT, model: str = "") -> dict[str, Any]:
    prompt = f"a {colour} star"
    return {"id": name, "source": source, "prompt": prompt, "model": model, "steps": steps, "keyframe_interval": 2}
